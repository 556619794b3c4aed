"""Aligning costs memory by the face, not by the photo, and gives what filtering the whole photo would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.data import astronaut
from skimage.filters import gaussian
from skimage.transform import SimilarityTransform, warp

from xfr_plugin.base.memory import measured_peak
from xfr_plugin.faces import ARCFACE_TEMPLATE, align
from xfr_plugin.faces.alignment import alignment_transform


def slowly(
    photo: NDArray[np.uint8], landmarks: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The whole photo filtered, then warped."""
    transform = SimilarityTransform(matrix=alignment_transform(landmarks, size))
    blur = (1 / transform.scale - 1) / 2
    smooth = photo if transform.scale >= 0.5 else gaussian(photo, sigma=blur, channel_axis=-1)
    crop = warp(smooth, transform.inverse, output_shape=size, order=1)
    return (np.clip(crop, 0, 1) * 255 + 0.5).astype(np.uint8)


def placed(scale: float, degrees: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (ARCFACE_TEMPLATE - 56) @ rotation.T * scale + 56 * scale + shift


def same_but_for_ties(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Equal, but for values halfway between two grey levels, which the last bit of a coordinate decides on."""
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.002


@pytest.mark.parametrize("size", [(112, 112), (160, 120), (40, 64)])
@pytest.mark.parametrize(
    ("scale", "degrees", "shift"),
    [
        (1.0, 0, (100, 80)),
        (0.4, 25, (300, 90)),
        (3.3, -20, (60, 40)),
        (4.2, 170, (20, 30)),
        (2.5, 8, (-120, 260)),
        (1.7, 40, (420, -60)),
        (9.0, 5, (-300, -250)),
        (2.2, 0, (900, 900)),
    ],
)
def test_the_crop_is_that_of_the_whole_photo(
    scale: float, degrees: float, shift: tuple[float, float], size: tuple[int, int]
) -> None:
    """Faces inside, at the borders, larger than the photo and outside of it."""
    photo, landmarks = astronaut(), placed(scale, degrees, shift)
    same_but_for_ties(align(photo, landmarks, size), slowly(photo, landmarks, size))


def test_the_border_of_a_light_photo() -> None:
    photo = np.maximum(astronaut(), 90)
    landmarks = placed(1.5, 12, (-70, 200))
    same_but_for_ties(align(photo, landmarks), slowly(photo, landmarks, (112, 112)))


def test_memory_goes_by_the_face() -> None:
    photo = np.full((3000, 4000, 3), 120, np.uint8)
    with measured_peak(torch.device("cpu")) as peak:
        align(photo, placed(4.0, 0, (1700, 1200)))
    if peak.extra is None:
        pytest.skip("memory cannot be measured here")
    assert peak.extra < 100 << 20, "the photo in float64 has 288 MB"
