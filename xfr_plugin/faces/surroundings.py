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
_FAR, _TOUCHING = 2, 0.5  # where `placed` says how far from the face a pixel is, in tens of pixels of 112
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
    terms = described(small, reduced_pixels(image, small.size), place)
    scores = _scored(_planes(terms), load_classifier().whole)
    scores[KINDS.index("ear"), _hidden(small)] = -np.inf
    kinds = _tidied(scores.argmax(axis=0), small, place)
    shares = (kinds == np.arange(len(KINDS))[:, None, None]) * 1.0
    largest = _resized(gaussian_filter(shares, (0, 0.6, 0.6)), regions.size).argmax(axis=0)
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
    rows, across = np.ogrid[: face.shape[0], : face.shape[1]]
    far = distance_transform_edt(~face) / (10 * unit)
    down, aside = (rows - brow) / high, np.abs(across - centre) / half
    level = np.exp(-(((down - 0.35) / 0.35) ** 2))
    terms = (
        level, np.ones_like(far), far, far**2, down, down**2, aside, aside**2, down * aside, far * down,
        level * np.exp(-(((far - 0.5) / 0.6) ** 2)), np.maximum(down, 0),
    )  # fmt: skip
    return _pixels(np.stack(np.broadcast_arrays(*terms)))


def described(
    regions: RegionMap, image: Floats, place: Floats, classifier: Classifier | None = None
) -> Floats:
    """Place and colour of each pixel, H×W×F, from a crop H×W×3 in [0, 1] of the size of its regions."""
    whereabouts = _planes(place)
    by_place = np.log(_softmax(_scored(whereabouts, (classifier or load_classifier()).place)) + 1e-6)
    smooth = gaussian_filter(_planes(image), (0, 0.5, 0.5))
    light = np.tensordot(_LUMA, smooth, 1)
    red, blue = (smooth[[0, 2]] - light) * 2
    bins = (np.stack((light, red + 0.5, blue + 0.5)) * _BINS).clip(0, _BINS - 1).astype(int)
    cells = (bins[0] * _BINS + bins[1]) * _BINS + bins[2]
    skin, outside = regions.mask(*_SKIN), regions.outside
    usual = _usual(cells, np.stack((*(np.exp(by_place[:2]) * outside), skin)))[:, cells]
    chances = _softmax(by_place + usual[[0, 1, 2, 2]] * np.array((0.7, 0.7, 0.5, 0.7))[:, None, None])
    own = smooth[:, skin]
    away = smooth - own.mean(axis=1)[:, None, None]
    unlike = np.sqrt(np.square(_scored(away, np.linalg.cholesky(np.linalg.inv(_spread(own))))).sum(axis=0))
    hairy, skinny = usual[1:] - usual[0]
    squares, around, *wider = gaussian_filter(np.stack((light**2, light, hairy, skinny)), (0, 1.5, 1.5))
    rough = np.sqrt(np.maximum(squares - around**2, 0))
    terms = (
        hairy, skinny, *wider, np.minimum(unlike, 8) / 4,
        light - light[skin].mean(), light, np.minimum(rough, 0.2) * 10, 5 * (red - red[skin].mean()),
        5 * (blue - blue[skin].mean()), np.exp(-((unlike / 2) ** 2)) * whereabouts[0],
    )  # fmt: skip
    return _pixels(np.concatenate((whereabouts, np.stack(terms), np.log(chances + 1e-2))))


@cache
def load_classifier() -> Classifier:
    """The shipped classifier."""
    document = json.loads((MODELS / "surroundings.json").read_text(encoding="utf-8"))
    return Classifier(*(np.array(document[name]) for name in ("place", "whole")))


def _usual(cells: NDArray[np.int64], weights: Floats) -> Floats:
    """Logarithm of how usual each of the colours is among pixels that are weighted in K ways, K×H×W: K×colours."""
    counts = np.stack([np.bincount(cells.ravel(), own.ravel(), minlength=_BINS**3) for own in weights])
    cubes = counts.reshape(-1, _BINS, _BINS, _BINS)
    spread = gaussian_filter(cubes, (0, 0.8, 0.8, 0.8), mode="constant").reshape(counts.shape)
    result: Floats = np.log(spread / np.maximum(spread.sum(axis=1, keepdims=True), _FLOOR) + _FLOOR)
    return result


def _spread(colours: Floats) -> Floats:
    result: Floats = np.cov(colours) + 0.03**2 * np.eye(3)
    return result


def _hidden(regions: RegionMap) -> NDArray[np.bool_]:
    """The far side of a head that is turned so much that its ear is hidden."""
    columns = np.flatnonzero(regions.face.any(axis=0))
    centre, half = columns[[0, -1]].mean(), max(1.0, np.ptp(columns) / 2)
    turn = (np.flatnonzero(regions.mask("nose").any(axis=0)).mean() - centre) / half
    sides = np.sign(np.arange(regions.size[1]) - centre)
    return np.broadcast_to(sides * turn > _TURNED, regions.size)


def _tidied(kinds: NDArray[np.int64], regions: RegionMap, place: Floats) -> NDArray[np.int64]:
    """Ears and skin that do not touch the face are background, and so are crumbs of ears."""
    kinds = np.where(regions.outside, kinds, len(KINDS))
    near = place[..., _FAR] < _TOUCHING
    for kind, smallest in ((2, _SMALLEST_EAR), (3, 1)):
        parts, count = label(kinds == kind)
        kept = np.bincount(parts.ravel(), minlength=count + 1) >= smallest
        kept &= np.bincount(parts[near], minlength=count + 1) > 0
        kinds[(parts > 0) & ~kept[parts]] = 0
    return kinds


def _named(kinds: NDArray[np.int64], regions: RegionMap) -> NDArray[np.uint8]:
    """Labels of kinds H×W by where they lie."""
    index = regions.names.index
    rows, columns = np.ogrid[: kinds.shape[0], : kinds.shape[1]]
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
    pixels = np.asarray(image, np.float64)
    return _pixels(_resized(_planes(pixels / 255 if image.dtype == np.uint8 else pixels), size))


def _resized(planes: Floats, size: tuple[int, int]) -> Floats:
    """Planes P×H×W at another size."""
    smaller = interpolate(torch.from_numpy(planes)[None], size, mode="bilinear", antialias=True)
    result: Floats = smaller[0].numpy()
    return result


def _planes(pixels: Floats) -> Floats:
    return np.moveaxis(pixels, 2, 0)


def _pixels(planes: Floats) -> Floats:
    return np.moveaxis(planes, 0, 2)


def _scored(planes: Floats, weights: Floats) -> Floats:
    """Linear functions, F×K, of planes F×H×W."""
    result: Floats = np.tensordot(weights, planes, (0, 0))
    return result


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=0))
    result: Floats = powers / powers.sum(axis=0)
    return result
