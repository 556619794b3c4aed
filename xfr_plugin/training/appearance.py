"""Fitting how uncovered faces look, from faces of training people; see `explanation.occlusion`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.errors import InputError
from xfr_plugin.explanation.occlusion import PARTS, Appearance, describe

__all__ = ["fit_appearance"]

_RIDGE = 0.02
"""Of each covariance, in units of its mean variance."""


def fit_appearance(
    faces: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]], flagged: float = 0.005
) -> Appearance:
    """Fit mean and covariance of each cell; limits come from other people.

    Args:
        faces: aligned crops H×W×3, to be fitted.
        others: of other people, for the limits.
        flagged: share of the others above the limit of each part.

    Raises:
        InputError: too few faces for a covariance.
    """
    if len(faces) < 100 or len(others) < 100:
        raise InputError("an appearance model needs a hundred faces to fit, and a hundred of other people")
    model = _fitted(np.stack([describe(face) for face in faces]))
    found = [model.oddities(describe(face)) for face in others]
    limits = {part: float(np.quantile([odd[part] for odd in found], 1 - flagged)) for part in PARTS}
    return Appearance(model.mean, model.precision, limits)


def _fitted(features: NDArray[np.float32]) -> Appearance:
    """From the features of faces, N×h×w×F."""
    mean = features.mean(axis=0, dtype=np.float64)
    off = features - mean
    covariance = np.einsum("nhwf,nhwg->hwfg", off, off) / len(off)
    ridge = _RIDGE * np.trace(covariance, axis1=2, axis2=3) / covariance.shape[2]
    covariance += ridge[..., None, None] * np.eye(covariance.shape[2])
    return Appearance(mean.astype(np.float32), np.linalg.inv(covariance).astype(np.float32), {})
