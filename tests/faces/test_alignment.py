"""Alignment puts the five landmarks on the template, at any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xfr_plugin.errors import FaceError, InputError
from xfr_plugin.faces import ARCFACE_TEMPLATE, align, fit_aligned, template
from xfr_plugin.faces.alignment import alignment_transform
from xfr_plugin.faces.lfw import read_landmarks


def test_template_of_112_is_arcface() -> None:
    np.testing.assert_allclose(template(), ARCFACE_TEMPLATE)


def test_template_keeps_the_face_height_and_centres_it() -> None:
    tall = template((160, 120))
    square = template((160, 160))
    np.testing.assert_allclose(tall[:, 1], square[:, 1])
    np.testing.assert_allclose(tall[:, 0], square[:, 0] - 20)


@pytest.mark.parametrize("size", [(112, 112), (160, 120), (56, 64)])
def test_a_dot_on_each_landmark_arrives_on_the_template(size: tuple[int, int]) -> None:
    turn = np.deg2rad(20)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = (ARCFACE_TEMPLATE @ rotation.T) * 2.5 + (140, 20)
    for point, wanted in zip(landmarks, template(size), strict=True):
        rows, columns = np.mgrid[:400, :420]
        dot = np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / (2 * 4**2))
        photo = np.repeat((255 * dot).astype(np.uint8)[..., None], 3, axis=2)
        crop = align(photo, landmarks, size)[..., 0].astype(float)
        assert crop.shape == size
        total = crop.sum()
        found = ((crop.sum(0) @ np.arange(size[1])) / total, (crop.sum(1) @ np.arange(size[0])) / total)
        assert np.abs(np.array(found) - wanted).max() < 0.5


def test_transform_is_the_least_squares_similarity() -> None:
    """Against the normal equations, solved plainly in float64."""
    rng = np.random.default_rng(0)
    points = ARCFACE_TEMPLATE * 1.7 + rng.normal(0, 3, (5, 2))
    x, y = points.T
    ones, zeros = np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, tx, ty = np.linalg.lstsq(rows, ARCFACE_TEMPLATE.T.ravel(), rcond=None)[0]
    expected = [[a, -b, tx], [b, a, ty], [0, 0, 1]]
    # Umeyama's and the plain solution agree on everything but the scale, which Umeyama estimates from variances
    found = alignment_transform(points)
    np.testing.assert_allclose(
        found[:2, :2] / np.linalg.det(found[:2, :2]) ** 0.5,
        np.array(expected)[:2, :2] / np.hypot(a, b),
        atol=1e-9,
    )
    residual = found[:2, :2] @ points.mean(0) + found[:2, 2] - ARCFACE_TEMPLATE.mean(0)
    np.testing.assert_allclose(residual, 0, atol=1e-9)


def test_outside_of_the_photo_is_black() -> None:
    photo = np.full((60, 60, 3), 200, np.uint8)
    crop = align(photo, ARCFACE_TEMPLATE - 40)
    assert (crop[-5:, -5:] == 0).all()
    assert crop[45, 45].tolist() == [200, 200, 200]


def test_shrinking_a_fine_pattern_does_not_alias() -> None:
    stripes = np.zeros((900, 900, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = align(stripes, ARCFACE_TEMPLATE * 7.5)
    assert crop[30:80, 30:80].std() < 8


def test_bad_landmarks_are_refused() -> None:
    photo = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(InputError, match="five finite points"):
        align(photo, np.zeros((4, 2)))
    with pytest.raises(InputError):
        align(photo, np.full((5, 2), np.nan))
    with pytest.raises(FaceError, match="coincide"):
        align(photo, np.ones((5, 2)))


def test_fit_aligned_cuts_the_sides_and_resizes() -> None:
    face = np.zeros((112, 112, 3), np.uint8)
    face[:, 14:98] = 255
    assert (fit_aligned(face, (160, 120)) == 255).all()
    assert fit_aligned(face, (112, 112)) is face
    wide = fit_aligned(face, (56, 84))
    assert wide.shape == (56, 84, 3)
    assert (wide[:, 42] == 255).all()
    assert (wide[:, :8] == 0).all()


@pytest.mark.real_data
def test_alignment_reproduces_the_aligned_faces(faces_root: Path) -> None:
    landmarks = read_landmarks(faces_root / "labels.csv")
    for name in ("Abel_Pacheco/Abel_Pacheco_0001.jpg", "AJ_Cook/AJ_Cook_0001.jpg"):
        photo = np.asarray(Image.open(faces_root / "lfw250" / name))
        given = np.asarray(Image.open(faces_root / "lfw112" / name)).astype(float)
        assert np.abs(align(photo, landmarks[name]) - given).mean() < 4
