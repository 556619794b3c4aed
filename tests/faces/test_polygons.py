"""Polygons as masks, against scikit-image's, which asks every pixel about every edge."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import polygon2mask

from xfr_plugin.faces.polygons import polygon_masks


@pytest.mark.parametrize("size", [(56, 56), (30, 24)])
@pytest.mark.parametrize("grid", [0, 1, 2])
def test_masks_are_those_of_scikit_image(size: tuple[int, int], grid: int) -> None:
    """Corners anywhere, also beyond the image; in the middle of pixels (grid 1), or half-way between, too."""
    random = np.random.default_rng(grid)
    for _ in range(20):
        corners = [random.uniform(-0.3, 1.3, (random.integers(3, 30), 2)) * size[::-1] for _ in range(7)]
        outlines = [np.rint(points * grid) / grid if grid else points for points in corners]
        expected = [polygon2mask(size, outline[:, ::-1]) for outline in outlines]
        np.testing.assert_array_equal(polygon_masks(outlines, size), expected)
