"""Named regions of an aligned face: a label map that divides the crop without gaps or overlaps.

`template_regions` is ours: drawn by hand on the ArcFace template, so it fits every aligned face about as well
as the alignment does. `mesh_regions` draws the regions of one face from its own face mesh. Left and right are
the subject's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.draw import polygon2mask

from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.faces.alignment import place_on_template

__all__ = ["REGION_NAMES", "RegionMap", "RegionsOf", "mesh_regions", "template_regions"]

REGION_NAMES = (
    "outside",
    "forehead",
    "right_cheek",
    "left_cheek",
    "chin",
    "nose",
    "right_eye",
    "left_eye",
    "right_brow",
    "left_brow",
    "mouth",
)

# Outlines (x, y) on the 112×112 template. Those of one side are mirrored about the midline for the other.
_MIDLINE = 55.9
_HALF_OVAL = (
    (55.9, 18), (44, 19), (34, 22.5), (25, 28.5), (19, 37), (16.5, 48), (17, 62), (18.5, 75),
    (21.5, 89), (27, 101), (34.5, 112), (45, 119), (55.9, 121),
)  # fmt: skip
_RIGHT_BROW = ((22.5, 44.5), (27, 38.5), (36, 36.5), (47.5, 38.5), (49, 43.5), (38, 42), (29, 43.5), (24, 47))
_RIGHT_EYE = ((26, 52), (30, 47.5), (38, 45.5), (46, 47.5), (49.5, 52.5), (45, 57), (37.5, 58.5), (30, 57))
_HALF_NOSE = ((55.9, 46.5), (51.5, 47), (51.5, 58), (48, 66), (43.5, 72), (43.5, 78), (49, 81), (55.9, 82))
_HALF_MOUTH = ((55.9, 86.5), (51, 85.5), (44, 89), (38.5, 92.5), (43, 97), (49, 101), (55.9, 102))
_BROW_LINE = 42.0
_MOUTH_LINE = 102.0


@dataclass(frozen=True)
class RegionMap:
    """Which named region each pixel of an aligned face belongs to.

    Attributes:
        labels: H×W, index into `names`.
        names: region names; index 0 is what lies outside the face.
    """

    labels: NDArray[np.uint8]
    names: tuple[str, ...] = REGION_NAMES

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.max(initial=0) >= len(self.names):
            raise InputError("a region map needs H×W labels, each an index into its names")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def face(self) -> NDArray[np.bool_]:
        """H×W mask of the face: everything but `outside`."""
        mask: NDArray[np.bool_] = self.labels > 0
        return mask

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """H×W mask of one region, or of several together.

        Raises:
            UnknownNameError: no such region.
        """
        for name in names:
            if name not in self.names:
                raise UnknownNameError.of("region", name, self.names)
        return np.isin(self.labels, [self.names.index(name) for name in names])

    def areas(self) -> dict[str, int]:
        """Number of pixels of each region."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, counts, strict=True)}

    def totals(self, values: ArrayLike) -> dict[str, float]:
        """Sum of a map over each region; the sums add up to the map's total.

        Raises:
            InputError: the map is not H×W of this size.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.shape != self.labels.shape:
            raise InputError(f"the map has shape {array.shape}, the regions {self.labels.shape}")
        sums = np.bincount(self.labels.ravel(), weights=array.ravel(), minlength=len(self.names))
        return {name: float(total) for name, total in zip(self.names, sums, strict=True)}


@cache
def template_regions(size: tuple[int, int] = (112, 112)) -> RegionMap:
    """Regions of the ArcFace template on an aligned crop of `size` (height, width); see the module."""
    outlines = {
        "face_oval": _both_halves(_HALF_OVAL),
        "nose": _both_halves(_HALF_NOSE),
        "right_eye": np.array(_RIGHT_EYE),
        "left_eye": _mirrored(_RIGHT_EYE),
        "right_brow": np.array(_RIGHT_BROW),
        "left_brow": _mirrored(_RIGHT_BROW),
        "mouth": _both_halves(_HALF_MOUTH),
    }
    placed = {name: place_on_template(points, size) for name, points in outlines.items()}
    lines = place_on_template(np.array([[_MIDLINE, _BROW_LINE], [_MIDLINE, _MOUTH_LINE]]), size)
    return _draw(placed, size, brow_line=lines[0, 1], mouth_line=lines[1, 1], midline=lines[0, 0])


def mesh_regions(
    points: ArrayLike, features: Mapping[str, Sequence[int]], size: tuple[int, int] = (112, 112)
) -> RegionMap:
    """Regions of one aligned face from its face mesh.

    Args:
        points: mesh vertices (x, y) in pixels of the crop, K×2.
        features: vertex indices of the outline (or of a set of points, whose hull is taken) of `face_oval`,
            `nose`, `right_eye`, `left_eye`, `right_brow`, `left_brow` and `mouth`. Forehead, cheeks and chin
            are what of the oval is left above the brows, between, and below the mouth.
        size: height and width of the crop.

    Raises:
        InputError: points that are not finite K×2, or features that are missing or point outside the mesh.
    """
    mesh = np.asarray(points, dtype=np.float64)
    if mesh.ndim != 2 or mesh.shape[1] != 2 or not np.isfinite(mesh).all():
        raise InputError(f"mesh points must be finite and K×2, got shape {mesh.shape}")
    needed = {"face_oval", "nose", "right_eye", "left_eye", "right_brow", "left_brow", "mouth"}
    if not needed <= features.keys():
        raise InputError(f"mesh features are missing: {', '.join(sorted(needed - features.keys()))}")
    if max(max(indices) for indices in features.values()) >= len(mesh):
        raise InputError(f"mesh features point beyond the {len(mesh)} vertices")
    outlines = {name: mesh[list(features[name])] for name in needed}
    brow = float(np.concatenate([outlines["right_brow"], outlines["left_brow"]])[:, 1].mean())
    mouth = float(outlines["mouth"][:, 1].max())
    midline = float(outlines["nose"][:, 0].mean())
    return _draw(outlines, size, brow, mouth, midline)


def _draw(
    outlines: Mapping[str, NDArray[np.float64]],
    size: tuple[int, int],
    brow_line: float,
    mouth_line: float,
    midline: float,
) -> RegionMap:
    """Divide the oval by the three lines, then paint the features over it."""
    labels = np.zeros(size, dtype=np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]]
    cheeks = np.where(columns < midline, _index("right_cheek"), _index("left_cheek"))
    bands = np.where(rows > mouth_line, _index("chin"), cheeks)
    bands = np.where(rows < brow_line, _index("forehead"), bands)
    oval = _inside(outlines["face_oval"], size)
    labels[oval] = bands[oval]
    for name in ("nose", "right_eye", "left_eye", "right_brow", "left_brow", "mouth"):
        labels[_inside(outlines[name], size)] = _index(name)
    return RegionMap(labels)


def _inside(outline: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = polygon2mask(size, outline[:, ::-1])
    return mask


def _index(name: str) -> int:
    return REGION_NAMES.index(name)


def _both_halves(right: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    return np.concatenate([np.array(right), _mirrored(right)[::-1]])


def _mirrored(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    mirrored = np.array(points, dtype=np.float64)
    mirrored[:, 0] = 2 * _MIDLINE - mirrored[:, 0]
    return mirrored


RegionsOf: TypeAlias = Callable[[str], RegionMap]
"""Named regions of the face in a file."""
