"""What lies around a face: hair, ears, bare skin, and background, told apart by place and colour.

A rule of ours. Each pixel is described by its place (how far from the face, how high, how far to a side) and by its
colour: how much more usual it is among those pixels of this photo that are probably hair than among those that are
probably background, or are skin, by place. A linear classifier of that was fitted to points labelled by hand;
`benchmarks/surroundings.py` fits and measures it. The outlines may be a face's own or the template's, and the photo
may be grey.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from torch.nn.functional import interpolate

from xfr_plugin.base.weights import MODELS
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap

__all__ = [
    "KINDS",
    "Classifier",
    "described",
    "load_classifier",
    "placed",
    "reduced",
    "reduced_pixels",
    "with_surroundings",
]

KINDS = ("background", "hair", "ear", "skin")
"""What is told apart; hats are hair; skin is the face's own, which its outline has left out."""

Floats = NDArray[np.float64]

_SIDE = 56
_BINS = 8
_FLOOR = 1e-4
_SMALLEST_EAR = 6
_TURNED = 0.36
_LUMA = np.array([0.299, 0.587, 0.114])
_SKIN = ("forehead", "right_cheek", "left_cheek", "nose", "chin")


@dataclass(frozen=True)
class Classifier:
    """Linear scores of `KINDS`: by place alone (P×4), and by all (F×4)."""

    place: Floats
    whole: Floats


def with_surroundings(regions: RegionMap, image: NDArray[np.uint8] | NDArray[np.float32]) -> RegionMap:
    """Tell apart what lies around a face. The regions of the face stay; bare skin above the brows joins the forehead,
    and beside the face the cheeks.

    Args:
        regions: of the face, with the names in `faces.REGION_NAMES`.
        image: the aligned crop, H×W×3, of uint8 or in [0, 1].

    Raises:
        InputError: the image is of another size.
    """
    if image.shape != (*regions.size, 3):
        raise InputError(f"the image has shape {image.shape}, the regions {regions.size}")
    outside = regions.outside
    small = reduced(regions)
    place = None if small.outside.all() or not outside.any() else placed(small)
    if place is None:
        return regions
    scores = described(small, reduced_pixels(image, small.size), place) @ load_classifier().whole
    scores[_hidden(small), KINDS.index("ear")] = -np.inf
    kinds = _tidied(scores.argmax(axis=2), small)
    shares = np.stack([kinds == k for k in range(len(KINDS))], axis=2) * 1.0
    largest = _resized(gaussian_filter(shares, (0.6, 0.6, 0)), regions.size).argmax(axis=2)
    labels = regions.labels.copy()
    labels[outside] = _named(largest, regions)[outside]
    return RegionMap(labels, regions.names)


def placed(regions: RegionMap) -> Floats | None:
    """Place of each pixel, H×W×P; none, if the map is too small to have brows, nose and mouth."""
    brows, nose, mouth = (
        np.argwhere(regions.mask(*names)) for names in (("right_brow", "left_brow"), ("nose",), ("mouth",))
    )
    if not (len(brows) and len(nose) and len(mouth)):
        return None
    face = regions.face
    columns = np.flatnonzero(face.any(axis=0))
    centre, half = columns[[0, -1]].mean(), max(1.0, np.ptp(columns) / 2)
    brow, unit = brows[:, 0].mean(), regions.size[0] / 112
    high = max(1.0, mouth[:, 0].max() - brow)
    rows, across = np.indices(face.shape)
    far = distance_transform_edt(~face) / (10 * unit)
    down, aside = (rows - brow) / high, np.abs(across - centre) / half
    level = np.exp(-(((down - 0.35) / 0.35) ** 2))
    terms = (
        level, np.ones_like(far), far, far**2, down, down**2, aside, aside**2, down * aside, far * down,
        level * np.exp(-(((far - 0.5) / 0.6) ** 2)), np.maximum(down, 0),
    )  # fmt: skip
    return np.stack(terms, axis=2)


def described(
    regions: RegionMap, image: Floats, place: Floats, classifier: Classifier | None = None
) -> Floats:
    """Place and colour of each pixel, H×W×F, from a crop H×W×3 in [0, 1] of the size of its regions."""
    by_place = np.log(_softmax(place @ (classifier or load_classifier()).place) + 1e-6)
    smooth = gaussian_filter(image, (0.5, 0.5, 0))
    light = smooth @ _LUMA
    red, blue = ((smooth[..., k] - light) * 2 for k in (0, 2))
    bins = [
        np.clip((v + 0.5 * k) * _BINS, 0, _BINS - 1).astype(int) for v, k in ((light, 0), (red, 1), (blue, 1))
    ]
    cells = (bins[0] * _BINS + bins[1]) * _BINS + bins[2]
    skin, outside = regions.mask(*_SKIN), regions.outside
    of_skin = _usual(cells[skin], np.ones(skin.sum()))
    back, hair = (_usual(cells[outside], np.exp(by_place[..., k][outside])) for k in range(2))
    usual = np.stack([back, hair, of_skin], axis=1)[cells]
    chances = _softmax(by_place + usual[..., [0, 1, 2, 2]] * (0.7, 0.7, 0.5, 0.7))
    own = smooth[skin]
    away = (smooth - own.mean(axis=0)) @ np.linalg.cholesky(np.linalg.inv(_spread(own)))
    unlike = np.sqrt((away**2).sum(axis=2))
    rough = np.sqrt(np.maximum(gaussian_filter(light**2, 1.5) - gaussian_filter(light, 1.5) ** 2, 0))
    hairy, skinny = usual[..., 1] - usual[..., 0], usual[..., 2] - usual[..., 0]
    terms = (
        hairy, skinny, gaussian_filter(hairy, 1.5), gaussian_filter(skinny, 1.5), np.minimum(unlike, 8) / 4,
        light - light[skin].mean(), light, np.minimum(rough, 0.2) * 10, 5 * (red - red[skin].mean()),
        5 * (blue - blue[skin].mean()), np.exp(-((unlike / 2) ** 2)) * place[..., 0],
    )  # fmt: skip
    return np.concatenate([place, np.stack(terms, axis=2), np.log(chances + 1e-2)], axis=2)


@cache
def load_classifier() -> Classifier:
    """The shipped classifier."""
    document = json.loads((MODELS / "surroundings.json").read_text(encoding="utf-8"))
    return Classifier(*(np.array(document[name]) for name in ("place", "whole")))


def _usual(cells: NDArray[np.int64], weights: Floats) -> Floats:
    """Logarithm of how usual each colour is among weighted pixels."""
    counts = np.bincount(cells, weights=weights, minlength=_BINS**3).reshape(_BINS, _BINS, _BINS)
    spread = gaussian_filter(counts, 0.8, mode="constant").ravel()
    result: Floats = np.log(spread / max(spread.sum(), _FLOOR) + _FLOOR)
    return result


def _spread(colours: Floats) -> Floats:
    result: Floats = np.cov(colours.T) + 0.03**2 * np.eye(3)
    return result


def _hidden(regions: RegionMap) -> NDArray[np.bool_]:
    """The far side of a head that is turned so much that its ear is hidden."""
    columns = np.flatnonzero(regions.face.any(axis=0))
    centre, half = columns[[0, -1]].mean(), max(1.0, np.ptp(columns) / 2)
    turn = (np.flatnonzero(regions.mask("nose").any(axis=0)).mean() - centre) / half
    sides = np.sign(np.arange(regions.size[1]) - centre)
    return np.broadcast_to(sides * turn > _TURNED, regions.size)


def _tidied(kinds: NDArray[np.int64], regions: RegionMap) -> NDArray[np.int64]:
    """Ears and skin that do not touch the face are background, and so are crumbs of ears."""
    kinds = np.where(regions.outside, kinds, len(KINDS))
    near = distance_transform_edt(regions.outside) < 2.5
    for kind in (2, 3):
        parts, count = label(kinds == kind)
        for part in range(1, count + 1):
            mask = parts == part
            if not (mask & near).any() or (kind == 2 and mask.sum() < _SMALLEST_EAR):
                kinds[mask] = 0
    return kinds


def _named(kinds: NDArray[np.int64], regions: RegionMap) -> NDArray[np.uint8]:
    """Labels of kinds H×W by where they lie."""
    index = regions.names.index
    rows, columns = np.indices(kinds.shape)
    middle = np.flatnonzero(regions.mask("nose").any(axis=0)).mean()
    brow = np.flatnonzero(regions.mask("right_brow", "left_brow").any(axis=1)).mean()
    right = columns < middle
    ear = np.where(right, index("right_ear"), index("left_ear"))
    cheek = np.where(right, index("right_cheek"), index("left_cheek"))
    skin = np.where(rows < brow, index("forehead"), cheek)
    named = np.choose(kinds, [index("background"), index("hair"), ear, skin])
    return named.astype(np.uint8)


def reduced(regions: RegionMap) -> RegionMap:
    """The map at the size at which pixels are described: 56 pixels high."""
    height, width = regions.size
    size = (_SIDE, max(1, round(width * _SIDE / height)))
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, (height, width), strict=True)
    )
    return RegionMap(regions.labels[rows][:, columns], regions.names)


def reduced_pixels(image: NDArray[np.uint8] | NDArray[np.float32], size: tuple[int, int]) -> Floats:
    """A crop H×W×3 at the size at which pixels are described, in [0, 1]."""
    return _resized(np.asarray(image / (255 if image.dtype == np.uint8 else 1), np.float64), size)


def _resized(values: Floats, size: tuple[int, int]) -> Floats:
    """Values H×W×C at another size."""
    planes = torch.from_numpy(values).permute(2, 0, 1)[None]
    result: Floats = interpolate(planes, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return result


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result
