"""Named regions of an aligned face: a label map that divides the crop without gaps or overlaps.

The names follow the components of facial comparison (FISWG; ASTM E3149), as far as they can be found.
`template_regions` is ours: drawn by hand on the ArcFace template, so it fits every aligned face about as well
as the alignment does. `mesh_regions` draws the regions of one face from its own face mesh. Both know the outline of
the face only: what lies around it they divide by where hair usually is; `surroundings.with_surroundings` looks at
the pixels. Left and right are the subject's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.faces.alignment import place_on_template
from xfr_plugin.faces.polygons import polygon_masks

__all__ = [
    "MESH_FEATURES",
    "OUTSIDE",
    "REGION_NAMES",
    "RegionMap",
    "RegionsOf",
    "mesh_regions",
    "template_regions",
]

REGION_NAMES = (
    "background",
    "hair",
    "right_ear",
    "left_ear",
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
"""Clothes and neck are background; the chin is chin and jaw; an eye has its lids, socket and bag; the mouth has the
skin up to the nose."""

OUTSIDE = ("background", "hair", "outside")
"""What is not the face. `outside` is what hair, ears and background were until they were told apart."""

MESH_FEATURES: dict[str, tuple[int, ...]] = {
    "right_socket": (35, 113, 46, 53, 52, 65, 55, 189, 244, 128, 121, 120, 119, 118, 117, 111),
    "left_socket": (265, 342, 276, 283, 282, 295, 285, 413, 464, 357, 350, 349, 348, 347, 346, 340),
    "bridge": (168, 193, 245, 188, 174, 217, 198, 420, 437, 399, 412, 465, 417),
    "philtrum": (61, 186, 92, 165, 97, 2, 326, 391, 322, 410, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
}
"""Vertices of the 468-point face mesh that outline what the features of its makers leave out: each eye with its
socket, up to the brow and down below the bag; the sides of the nose up to the corners of the eyes; the skin between
nose and lips."""

_NEEDED = {"face_oval", "nose", "right_brow", "left_brow", "mouth", *MESH_FEATURES}

# Outlines (x, y) on the 112×112 template. Those of one side are mirrored about the midline for the other.
_MIDLINE = 55.9
_HALF_OVAL = (
    (55.9, 18), (44, 19), (34, 22.5), (25, 28.5), (19, 37), (16.5, 48), (17, 62), (18.5, 75),
    (21.5, 89), (27, 101), (34.5, 112), (45, 119), (55.9, 121),
)  # fmt: skip
_RIGHT_BROW = ((22.5, 44.5), (27, 38.5), (36, 36.5), (47.5, 38.5), (49, 43.5), (38, 42), (29, 43.5), (24, 47))
_RIGHT_SOCKET = (
    (22, 54), (25, 50.5), (23.5, 46.5), (29, 43), (38, 41), (49, 43), (49.5, 50), (49.5, 55),
    (48.5, 58.5), (45, 61), (41, 63), (36, 64), (30, 64), (25, 62.5), (22, 59),
)  # fmt: skip
_HALF_NOSE = (
    (55.9, 47),
    (51, 48.5),
    (50, 55),
    (50, 60),
    (47, 65),
    (43.5, 71),
    (43, 77),
    (47, 80),
    (55.9, 81),
)
_HALF_MOUTH = ((55.9, 80), (50, 80), (43, 83), (38, 87), (37.5, 91.5), (43, 97.5), (49, 101.5), (55.9, 102.5))
_BROW_LINE = 42.0
_MOUTH_LINE = 102.5

# Hair, where no pixels are seen: above the brows or a little below, in an oval that is so much larger.
_HAIR_REACH = 1.35
_HAIR_BELOW = 0.1


@dataclass(frozen=True)
class RegionMap:
    """Which named region each pixel of an aligned face belongs to.

    Attributes:
        labels: H×W, index into `names`.
        names: region names; index 0 is what lies around the face.
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
    def of_face(self) -> tuple[int, ...]:
        """Indices of the regions of the face: all but the first and whichever of `OUTSIDE` there are."""
        return tuple(i for i, name in enumerate(self.names) if i and name not in OUTSIDE)

    @property
    def outside(self) -> NDArray[np.bool_]:
        """H×W mask of hair and background."""
        return ~self.face

    @property
    def face(self) -> NDArray[np.bool_]:
        """H×W mask of the face: everything but hair and background."""
        return self._mask_of(self.of_face)

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """H×W mask of one region, or of several together.

        Raises:
            UnknownNameError: no such region.
        """
        for name in names:
            if name not in self.names:
                raise UnknownNameError.of("region", name, self.names)
        return self._mask_of([self.names.index(name) for name in names])

    def _mask_of(self, indices: Sequence[int]) -> NDArray[np.bool_]:
        wanted = np.zeros(256, dtype=np.bool_)
        wanted[list(indices)] = True
        return wanted[self.labels]

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
        "right_socket": np.array(_RIGHT_SOCKET),
        "left_socket": _mirrored(_RIGHT_SOCKET),
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
        features: vertex indices along the outline of `face_oval`, `nose`, `right_brow`, `left_brow` and `mouth` (the
            lips), and of those in `MESH_FEATURES`. Forehead, cheeks and chin are what of the oval is left above the
            brows, between, and below the mouth.
        size: height and width of the crop.

    Raises:
        InputError: points that are not finite K×2, or features that are missing or point outside the mesh.
    """
    mesh = np.asarray(points, dtype=np.float64)
    if mesh.ndim != 2 or mesh.shape[1] != 2 or not np.isfinite(mesh).all():
        raise InputError(f"mesh points must be finite and K×2, got shape {mesh.shape}")
    if not features.keys() >= _NEEDED:
        raise InputError(f"mesh features are missing: {', '.join(sorted(_NEEDED - features.keys()))}")
    if max(max(indices) for indices in features.values()) >= len(mesh):
        raise InputError(f"mesh features point beyond the {len(mesh)} vertices")
    outlines = {name: mesh[list(features[name])] for name in _NEEDED}
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
    painted = [(outlines[feature], _index(name)) for feature, name in _PAINTED if feature in outlines]
    oval = outlines["face_oval"]
    around, face, *features = polygon_masks([_enlarged(oval), oval, *(one for one, _ in painted)], size)
    around[max(0, round(brow_line + _HAIR_BELOW * size[0])) :] = False
    labels: NDArray[np.uint8] = np.where(around, _index("hair"), _index("background")).astype(np.uint8)
    rows, columns = np.ogrid[: size[0], : size[1]]
    cheeks = np.where(columns < midline, _index("right_cheek"), _index("left_cheek"))
    bands = np.where(rows > mouth_line, _index("chin"), cheeks)
    between = (
        np.abs(columns - midline) < (outlines["left_socket"] - outlines["right_socket"]).mean(axis=0)[0] / 2
    )
    above_nose = (
        rows < min(outlines[name][:, 1].min() for name in ("nose", "bridge") if name in outlines)
    ) & between
    bands = np.where((rows < brow_line) | above_nose, _index("forehead"), bands)
    np.copyto(labels, bands, where=face, casting="unsafe")
    for mask, (_, index) in zip(features, painted, strict=True):
        labels[mask] = index
    return RegionMap(labels)


_PAINTED = (
    ("right_socket", "right_eye"),
    ("left_socket", "left_eye"),
    ("philtrum", "mouth"),
    ("mouth", "mouth"),
    ("bridge", "nose"),
    ("nose", "nose"),
    ("right_brow", "right_brow"),
    ("left_brow", "left_brow"),
)
"""Outlines in the order in which they are painted, and the region that each belongs to."""


def _enlarged(oval: NDArray[np.float64]) -> NDArray[np.float64]:
    """The oval in which hair is, where no pixels are seen."""
    centre: NDArray[np.float64] = (oval.min(axis=0) + oval.max(axis=0)) / 2
    return centre + _HAIR_REACH * (oval - centre)


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
