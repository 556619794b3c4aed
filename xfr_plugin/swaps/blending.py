"""Putting a region of one aligned face into another: feathered, or seamless as in Poisson image editing."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from xfr_plugin.errors import InputError

__all__ = ["Blending", "blend_region"]

Blending: TypeAlias = Literal["feather", "poisson"]
"""`feather`: the donor, shifted to the face's colour along the seam, fades in over a few pixels. `poisson`: the
donor's gradients are kept and its colours are solved for (Perez, Gangnet and Blake, SIGGRAPH 2003)."""

Face: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

_GROWTH = 2 / 112
_FEATHER = 1.5 / 112


def blend_region(
    face: Face, donor: Face, mask: Mask, blending: Blending = "feather", strength: float = 1.0
) -> Face:
    """Replace a region of a face by that of an aligned donor.

    Args:
        face: H×W×3 in [0, 1].
        donor: of the same shape.
        mask: H×W; the region. Two pixels (of 112) around it come along, so that the whole feature does.
        blending: see `Blending`.
        strength: 0…1, the share of the donor; 1 replaces the region.

    Returns:
        The blended face, H×W×3 in [0, 1].

    Raises:
        InputError: shapes differ, an empty mask, an unknown blending, or a strength outside 0…1.
    """
    if face.shape != donor.shape or face.shape != (*mask.shape, 3):
        raise InputError(
            f"face {face.shape}, donor {donor.shape} and mask {mask.shape} must be of one size, the faces in RGB"
        )
    if not mask.any():
        raise InputError("the region to be replaced is empty on this face")
    if not 0 <= strength <= 1:
        raise InputError(f"strength must be between 0 and 1, got {strength}")
    if blending not in ("feather", "poisson"):
        raise InputError(f"blending must be 'feather' or 'poisson', got {blending!r}")
    size = mask.shape[0]
    grown = binary_dilation(mask, iterations=max(1, round(_GROWTH * size)))
    replaced = (
        _seamless(face, donor, grown)
        if blending == "poisson"
        else _feathered(face, donor, grown, _FEATHER * size)
    )
    return np.clip(face + strength * (replaced - face), 0, 1).astype(np.float32)


def _feathered(face: Face, donor: Face, mask: Mask, sigma: float) -> Face:
    weights = gaussian_filter(mask.astype(np.float32), sigma)[..., None]
    seam = binary_dilation(mask, iterations=2) & ~binary_erosion(mask)
    shifted = donor - donor[seam].mean(axis=0) + face[seam].mean(axis=0)
    blended: Face = weights * shifted + (1 - weights) * face
    return blended


def _seamless(face: Face, donor: Face, mask: Mask) -> Face:
    """Solve Δu = Δdonor inside the mask with u = face on its border."""
    inside = mask & binary_erosion(np.ones_like(mask))  # the image's own edge has no outer neighbours
    index = np.full(mask.shape, -1)
    rows, columns = np.nonzero(inside)
    index[rows, columns] = np.arange(len(rows))
    known = np.zeros((len(rows), 3))
    entries: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for step_down, step_right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        down, right = rows + step_down, columns + step_right
        neighbours = index[down, right]
        unknown = neighbours >= 0
        entries.append((np.flatnonzero(unknown), neighbours[unknown]))
        known += donor[rows, columns] - donor[down, right]
        known[~unknown] += face[down, right][~unknown]
    i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
    diagonal = np.arange(len(rows))
    values = np.concatenate([np.full(len(rows), 4.0), np.full(len(i), -1.0)])
    places = (np.concatenate([diagonal, i]), np.concatenate([diagonal, j]))
    system = csc_array((values, places), shape=(len(rows), len(rows)))
    result = face.copy()
    result[rows, columns] = splu(system).solve(known)
    return result
