"""Seamless cloning: a donor's region keeps its gradients, and its colours are solved for (Poisson image editing)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import spsolve

__all__ = ["seamless_changes"]

Planes = NDArray[np.float64]


def seamless_changes(face: Planes, donor: Planes, mask: NDArray[np.bool_]) -> Planes:
    """What a region adds to a face that takes it from a donor.

    At the crop's edge pixels have fewer neighbours, and nothing there holds the donor to the face.

    Args:
        face: C×H×W.
        donor: of the same shape.
        mask: the region, H×W.

    Returns:
        C×H×W, 0 outside the region; donor − face, if it is the whole crop.
    """
    if mask.all():
        return donor - face
    above = sparse.kronsum(*(_differences(side) for side in mask.shape[::-1]), format="csr")
    inside = np.flatnonzero(mask)
    apart = (face - donor).reshape(len(face), -1).T
    around = np.where(mask.ravel()[:, None], 0.0, apart)
    changes = np.zeros_like(apart)
    # face and donor are apart as little as what surrounds the region allows
    changes[inside] = spsolve(above[inside][:, inside].tocsc(), -(above[inside] @ around)) - apart[inside]
    return changes.T.reshape(face.shape)


def _differences(length: int) -> sparse.spmatrix:
    """How far each pixel of a line is above its neighbours, summed over those that it has, as a matrix."""
    return laplacian(sparse.diags([1.0, 1.0], [-1, 1], shape=(length, length)))
