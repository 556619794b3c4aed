"""May the eyes or the mouth be covered? Gradients that faces do not have there.

A model of how aligned faces look: in each cell of 8×8 pixels of 112×112, the directions and the strength of the
gradients (after Dalal and Triggs, CVPR 2005), relative to the face, so that light and contrast do not matter; mean
and covariance of each cell over training people (a Gaussian for each place, as in PaDiM, arXiv 2011.08785). No
occluder was shown to it. The odder the oddest quarter of the cells around the eyes or the mouth, the likelier
something lies over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin.base.weights import MODELS, read_weights, write_weights
from xfr_plugin.faces.alignment import fit_aligned

__all__ = ["PARTS", "Appearance", "covered_parts", "describe", "load_appearance"]

PARTS: dict[str, tuple[slice, slice]] = {
    "eyes": (slice(4, 8), slice(2, 12)),
    "mouth": (slice(9, 13), slice(3, 11)),
}
"""Part → its cells, rows and columns of 14×14."""

_SIZE, _CELL, _BINS = (112, 112), 8, 8
_SMALLEST = 64
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def describe(face: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features of an aligned face H×W×3, 14×14×9: gradients by direction, and their strength."""
    gradients = _gradients(fit_aligned(face, _SIZE).astype(np.float32) @ _GREY)
    strength = np.linalg.norm(gradients, axis=2, keepdims=True)
    usual = np.median(strength) + 1e-6
    found: NDArray[np.float32] = np.concatenate(
        [np.sqrt(gradients / (strength + 0.3 * usual)), np.log(strength / usual + 0.05)], axis=2
    ).astype(np.float32)
    return found


@dataclass(frozen=True)
class Appearance:
    """How uncovered faces look, see the module.

    Attributes:
        mean: of the features of each cell, 14×14×F.
        precision: inverse covariance of each cell, 14×14×F×F.
        limits: oddity from which on a part may be covered, by part.
    """

    mean: NDArray[np.float32]
    precision: NDArray[np.float32]
    limits: dict[str, float]

    def oddities(self, features: NDArray[np.float32]) -> dict[str, float]:
        """How odd each part is, from the features of a face."""
        off = features - self.mean
        distances = np.einsum("hwf,hwfg,hwg->hw", off, self.precision, off) / features.shape[2]
        return {part: _top_quarter(distances[cells]) for part, cells in PARTS.items()}

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        tensors = {name: torch.from_numpy(getattr(self, name)) for name in ("mean", "precision")}
        write_weights(path, tensors, {"limits": self.limits})


@cache
def load_appearance() -> Appearance:
    """The model that ships, made by `benchmarks/occlusion_caution.py`."""
    tensors, card = read_weights(MODELS / "appearance.safetensors")
    limits = {part: float(card["limits"][part]) for part in PARTS}
    return Appearance(tensors["mean"].numpy(), tensors["precision"].numpy(), limits)


def covered_parts(face: NDArray[np.uint8]) -> tuple[str, ...]:
    """Parts of an aligned face H×W×3 that may be covered; none, if the crop is too small to tell."""
    if min(face.shape[:2]) < _SMALLEST:
        return ()
    model = load_appearance()
    odd = model.oddities(describe(face))
    return tuple(part for part in PARTS if odd[part] > model.limits[part])


def _gradients(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean strength of the gradients of each direction in each cell; between two directions both get a share."""
    rows, columns = np.gradient(grey)
    strength, place = np.hypot(rows, columns), np.arctan2(rows, columns) % (2 * np.pi) / (2 * np.pi) * _BINS
    first = place.astype(np.intp)
    share = strength * (place - first)
    cells, height = _BINS * _cells(), _SIZE[0] // _CELL
    bins = np.bincount((cells + first % _BINS).ravel(), (strength - share).ravel(), cells.max() + _BINS)
    bins += np.bincount((cells + (first + 1) % _BINS).ravel(), share.ravel(), len(bins))
    return (bins / _CELL**2).reshape(height, -1, _BINS).astype(np.float32)


@cache
def _cells() -> NDArray[np.intp]:
    """The number of the cell of each pixel, row by row."""
    numbers = np.arange(_SIZE[0] * _SIZE[1] // _CELL**2).reshape(_SIZE[0] // _CELL, -1)
    return numbers.repeat(_CELL, axis=0).repeat(_CELL, axis=1)


def _top_quarter(values: NDArray[np.float32]) -> float:
    ordered = np.sort(values.ravel())
    return float(ordered[-(len(ordered) // 4) :].mean())
