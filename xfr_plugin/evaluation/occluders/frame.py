"""The frame of a face, in which occluders are drawn, and shapes in it.

u runs along the eyes, which lie at u = −½ (the subject's right) and ½; v runs down, 0 at the eyes and 1 at the mouth.
So what is drawn in it turns and leans with the face, in aligned crops and in photographs alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import template
from xfr_plugin.faces.regions import RegionMap

__all__ = ["Frame", "Plane", "landmarks_of"]

Plane = NDArray[np.float64]
"""A number for each pixel, H×W."""


@dataclass(frozen=True)
class Frame:
    """Coordinates of each pixel in the frame of a face.

    Attributes:
        u: along the eyes, H×W.
        v: from the eyes down, H×W.
        pixel: size of a pixel.
    """

    u: Plane
    v: Plane
    pixel: float

    @classmethod
    def of(cls, landmarks: NDArray[np.floating], size: tuple[int, int]) -> Frame:
        """The frame of a face in an image of `size` (height, width).

        Args:
            landmarks: the subject's right eye, left eye, nose, right and left corner of the mouth, (x, y) in pixels.
            size: of the image.

        Raises:
            InputError: landmarks that lie on one line.
        """
        points = np.asarray(landmarks, dtype=np.float64)
        middle = points[:2].mean(axis=0)
        axes = np.stack([points[1] - points[0], points[3:].mean(axis=0) - middle], axis=1)
        if points.shape != (5, 2) or abs(np.linalg.det(axes)) < 1:
            raise InputError("a face needs five landmarks (x, y) that do not lie on one line")
        rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
        offsets = np.stack([columns - middle[0], rows - middle[1]])
        u, v = np.einsum("ab,bhw->ahw", np.linalg.inv(axes), offsets)
        return cls(u, v, float(1 / np.linalg.norm(axes[:, 0])))

    def soft(self, depth: Plane, width: float = 1.5) -> Plane:
        """How much a shape covers each pixel, 0…1, from how deep inside it lies; its edge is `width` pixels wide."""
        covered: Plane = np.clip(0.5 + depth / (width * self.pixel), 0, 1)
        return covered

    def ellipse(self, u: float, v: float, width: float, height: float, power: float = 2.0) -> Plane:
        """Depth inside an ellipse around (u, v) with these half axes; a box with round corners for powers above 2."""
        radius = (np.abs((self.u - u) / width) ** power + np.abs((self.v - v) / height) ** power) ** (
            1 / power
        )
        depth: Plane = (1 - radius) * min(width, height)
        return depth

    def box(self, u: float, v: float, width: float, height: float, angle: float = 0.0) -> Plane:
        """Depth inside a box around (u, v) with these half sides, turned by an angle in radians."""
        du, dv = self.u - u, self.v - v
        along, across = du * np.cos(angle) + dv * np.sin(angle), dv * np.cos(angle) - du * np.sin(angle)
        depth: Plane = np.minimum(width - np.abs(along), height - np.abs(across))
        return depth

    def stroke(self, points: Sequence[tuple[float, float]], width: float) -> Plane:
        """Depth inside a line of half width `width` through points (u, v)."""
        depths = [self._segment(a, b, width) for a, b in pairwise(points)]
        depth: Plane = np.max(depths, axis=0)
        return depth

    def noise(self, rng: np.random.Generator, grain: float) -> Plane:
        """Smooth noise of mean 0 and standard deviation 1, with features of size `grain`."""
        drawn = gaussian_filter(rng.standard_normal(self.u.shape), grain / self.pixel)
        scaled: Plane = (drawn - drawn.mean()) / max(float(drawn.std()), 1e-12)
        return scaled

    def _segment(self, a: tuple[float, float], b: tuple[float, float], width: float) -> Plane:
        du, dv = b[0] - a[0], b[1] - a[1]
        along = ((self.u - a[0]) * du + (self.v - a[1]) * dv) / max(du * du + dv * dv, 1e-12)
        nearest = np.clip(along, 0, 1)
        depth: Plane = width - np.hypot(self.u - a[0] - nearest * du, self.v - a[1] - nearest * dv)
        return depth


def landmarks_of(regions: RegionMap) -> NDArray[np.float64]:
    """Five landmarks of an aligned face from its named regions; of the template for what it does not show."""
    points = template(regions.size).copy()
    for place, name in enumerate(("right_eye", "left_eye")):
        seen = np.argwhere(regions.mask(name))
        if len(seen):
            points[place] = seen.mean(axis=0)[::-1]
    mouth = np.argwhere(regions.mask("mouth"))
    if len(mouth):
        points[3:, 1] = mouth[:, 0].mean()
        points[3:, 0] = mouth[:, 1].min(), mouth[:, 1].max()
    return points
