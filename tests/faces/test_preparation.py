"""From photo to aligned face: choice among faces, aligned crops, notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xfr_plugin.errors import FaceError, FaceWarning, InputError, NoFaceError
from xfr_plugin.faces import ARCFACE_TEMPLATE, Box, DetectedFace, Detector, align, prepare_face


def face_at(x: float, scale: float) -> DetectedFace:
    return DetectedFace(Box(x, 0, 112 * scale, 112 * scale), ARCFACE_TEMPLATE * scale + (x, 0))


class Finder:
    """A user's own detector."""

    def __init__(self, *faces: DetectedFace) -> None:
        self.faces = faces
        self.calls = 0

    def __call__(self, photo: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        self.calls += 1
        return self.faces


def test_any_callable_is_a_detector() -> None:
    assert isinstance(Finder(), Detector)


def test_the_largest_face_is_taken_and_said_so(face_photo: NDArray[np.uint8]) -> None:
    small, large = face_at(5, 0.6), face_at(20, 1.0)
    with pytest.warns(FaceWarning, match="2 faces"):
        prepared = prepare_face(face_photo, detector=Finder(small, large))
    assert prepared.detected is large
    assert any("2 faces" in note for note in prepared.notes)
    np.testing.assert_array_equal(prepared.image, align(face_photo, large.landmarks))


def test_another_face_can_be_chosen(face_photo: NDArray[np.uint8]) -> None:
    small, large = face_at(5, 0.6), face_at(20, 1.0)
    with pytest.warns(FaceWarning):
        assert prepare_face(face_photo, detector=Finder(small, large), face=1).detected is small
    with pytest.raises(FaceError, match="no face number 2"):
        prepare_face(face_photo, detector=Finder(small, large), face=2)
    with pytest.raises(FaceError, match="no face number -1"):
        prepare_face(face_photo, detector=Finder(small, large), face=-1)


def test_no_face(face_photo: NDArray[np.uint8]) -> None:
    with pytest.raises(NoFaceError, match="no face was found"):
        prepare_face(face_photo, detector=Finder())


def test_tiny_face_warns(face_photo: NDArray[np.uint8]) -> None:
    with pytest.warns(FaceWarning, match="tiny: 14 pixels"):
        prepare_face(face_photo, detector=Finder(face_at(5, 0.4)))


def test_a_face_too_small_to_recognise_is_refused(face_photo: NDArray[np.uint8]) -> None:
    with pytest.raises(FaceError, match="5 pixels between the eyes"):
        prepare_face(face_photo, detector=Finder(face_at(5, 0.15)))


def test_a_face_that_the_border_cuts_warns(face_photo: NDArray[np.uint8]) -> None:
    with pytest.warns(FaceWarning, match="cut by the border"):
        prepare_face(face_photo, detector=Finder(face_at(-60, 1)))


def test_a_face_outside_of_the_photo_is_refused(face_photo: NDArray[np.uint8]) -> None:
    with pytest.raises(FaceError, match="outside of the photo"):
        prepare_face(face_photo, detector=Finder(face_at(9000, 1)))


@pytest.mark.parametrize("convert", [np.ndarray.tolist, torch.from_numpy, lambda points: points.astype(int)])
def test_landmarks_of_a_detector_may_be_any_numbers(
    face_photo: NDArray[np.uint8], convert: Callable[[NDArray[np.float64]], object]
) -> None:
    face = face_at(5, 1)
    prepared = prepare_face(face_photo, detector=Finder(replace(face, landmarks=convert(face.landmarks))))
    assert prepared.detected is not None
    np.testing.assert_allclose(prepared.detected.landmarks, face.landmarks, atol=1)


BOX = Box(0, 0, 112, 112)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (5, "list of faces, got int"),
        ("face", "DetectedFace values"),
        ([(BOX, ARCFACE_TEMPLATE)], "DetectedFace values"),
        ([DetectedFace((0, 0, 5, 5), ARCFACE_TEMPLATE)], "with a Box"),
        ([DetectedFace(Box(0, 0, float("nan"), 5), ARCFACE_TEMPLATE)], "box must be finite"),
        ([DetectedFace(BOX, ARCFACE_TEMPLATE * np.nan)], "five finite points"),
        ([DetectedFace(BOX, ARCFACE_TEMPLATE[:3])], "five finite points"),
        ([DetectedFace(BOX, [[1, 2], [3]])], "five points"),
        ([DetectedFace(BOX, None)], "five finite points"),
    ],
)
def test_what_a_detector_gives_is_checked(face_photo: NDArray[np.uint8], found: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare_face(face_photo, detector=lambda _photo: found)


def test_a_detector_may_give_no_list(face_photo: NDArray[np.uint8]) -> None:
    with pytest.raises(NoFaceError):
        prepare_face(face_photo, detector=lambda _photo: None)
    assert prepare_face(face_photo, detector=lambda _photo: iter([face_at(5, 1)])).detected is not None


@pytest.mark.parametrize("change", [{"face": 0.0}, {"face": True}, {"face": "0"}, {"size": (0, 5)}])
def test_numbers_that_make_no_sense_are_refused(
    face_photo: NDArray[np.uint8], change: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"whole number|at least 1"):
        prepare_face(face_photo, detector=Finder(face_at(5, 1)), **change)


def test_a_photo_of_the_crops_size_passes_through(face_photo: NDArray[np.uint8]) -> None:
    crop = face_photo[:112, :112]
    finder = Finder(face_at(0, 1))
    prepared = prepare_face(crop, detector=finder)
    assert finder.calls == 0
    assert prepared.detected is None
    np.testing.assert_array_equal(prepared.image, crop)
    prepare_face(crop, detector=finder, alignment="detect")
    assert finder.calls == 1


def test_aligned_crops_of_other_sizes_are_fitted(face_photo: NDArray[np.uint8]) -> None:
    assert prepare_face(face_photo, (160, 120), alignment="aligned").image.shape == (160, 120, 3)


def test_unknown_alignment(face_photo: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="alignment"):
        prepare_face(face_photo, alignment="maybe")
