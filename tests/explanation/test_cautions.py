"""What makes an answer less reliable is said aloud by the local calls: which photo, and what about it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from xfr_plugin import explain, load_recognizer, verify
from xfr_plugin.errors import FaceWarning, NoFaceError, PhotoFormatError, PhotoNotFoundError
from xfr_plugin.explanation.quality import (
    MISALIGNED,
    Caution,
    copy_cautions,
    face_cautions,
    measure,
    misalignment,
)
from xfr_plugin.faces import prepare_face
from xfr_plugin.recognition import Recognizer

Photo = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return load_recognizer("xfr_compact128")


@pytest.fixture(scope="module")
def astronaut() -> Photo:
    photo: Photo = data.astronaut()
    return photo


@pytest.fixture(scope="module")
def crop(astronaut: Photo) -> Photo:
    return prepare_face(astronaut).image


def said(model: Recognizer, a: object, b: object, **options: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        verify(a, b, recognizer=model, **options)  # type: ignore[arg-type]  # of tests
    assert all(warning.category is FaceWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def test_good_crops_and_photographs_cause_no_words(model: Recognizer, crop: Photo, astronaut: Photo) -> None:
    assert said(model, crop, astronaut) == []


def test_a_scene_of_the_size_of_a_crop_is_said_aloud(
    model: Recognizer, crop: Photo, astronaut: Photo
) -> None:
    scene = np.asarray(Image.fromarray(astronaut[0:300, 100:400]).resize((112, 112)))
    blank = np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8)
    (words,) = said(model, crop, scene)
    assert words.startswith("reference: the image was taken as an aligned crop")
    assert "lies elsewhere" in words
    assert "no face is found in it" in said(model, blank, crop)[0]
    assert said(model, crop, scene, alignment="aligned") == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda face: (face * 0.3).astype(np.uint8), "dark"),
        (lambda face: (face * 0.1 + 120).astype(np.uint8), "poor in contrast"),
        (lambda face: np.asarray(Image.fromarray(face).resize((14, 14)).resize((112, 112))), "blurred"),
        (lambda face: (face * np.repeat([1, 0.3], 56)[:, None]).astype(np.uint8), "lit from one side"),
    ],
)
def test_poor_faces_are_named(model: Recognizer, crop: Photo, change: object, word: str) -> None:
    poor = change(crop)  # type: ignore[operator]  # a function
    found = said(model, crop, poor, alignment="aligned")
    assert any(words.startswith(f"reference: the face is {word}") for words in found)
    assert not any(words.startswith("probe") for words in found)
    with pytest.warns(FaceWarning):
        notes = explain(poor, crop, recognizer=model, alignment="aligned", method="xssab").notes
    assert any(note.startswith(f"probe: the face is {word}") for note in notes)


@pytest.mark.parametrize("height", [112, 128, 160, 224])
def test_a_face_is_as_sharp_for_a_recognizer_of_larger_images(crop: Photo, height: int) -> None:
    """From pixel to pixel an enlarged face is smoother, and was said to be blurred."""
    blurred = np.asarray(Image.fromarray(crop).resize((14, 14)).resize((112, 112)))
    for face in (crop, blurred):
        larger = np.asarray(Image.fromarray(face).resize((height, height), Image.Resampling.BICUBIC))
        assert 0.8 < measure(larger)[2] / measure(face)[2] < 1.1


def test_warnings_of_several_faces_say_which_photo(model: Recognizer, crop: Photo, astronaut: Photo) -> None:
    two = np.concatenate([astronaut, astronaut], axis=1)
    (words,) = said(model, crop, two)
    assert words.startswith("reference: 2 faces in the photo")


def test_a_face_that_the_border_cuts_is_named(model: Recognizer, crop: Photo, astronaut: Photo) -> None:
    cut = astronaut[40:220, 212:325]  # without the right eye
    words = "the face is cut by the border of the photo"
    assert f"reference: {words}" in said(model, crop, cut)
    with pytest.warns(FaceWarning, match=words):
        face = prepare_face(cut)
    assert face_cautions("probe", face)[0] == Caution("low_quality", words, "probe")


def test_a_score_near_the_threshold_is_said_aloud(model: Recognizer, crop: Photo) -> None:
    near = said(model, crop, crop, threshold=0.98)
    assert near == [
        "the score is within 0.03 of the threshold: small changes of a photo reverse the decision"
    ]
    assert said(model, crop, crop, threshold=0.9) == []


@pytest.mark.parametrize("side", ["probe", "reference"])
def test_errors_say_which_photo(model: Recognizer, crop: Photo, tmp_path: Path, side: str) -> None:
    blank, text, good = tmp_path / "blank.png", tmp_path / "text.png", tmp_path / "good.png"
    Image.new("RGB", (300, 200), "grey").save(blank)
    text.write_text("no image")
    Image.fromarray(crop).save(good)

    def refused(photo: object, error: type[Exception]) -> str:
        photos = (photo, good) if side == "probe" else (good, photo)
        with pytest.raises(error) as caught:
            verify(*photos, recognizer=model)  # type: ignore[arg-type]  # of tests
        assert type(caught.value) is error
        return str(caught.value)

    assert refused(blank, NoFaceError).startswith(f"{side} {blank}: no face was found")
    assert refused(np.asarray(Image.open(blank)), NoFaceError).startswith(f"{side}: no face was found")
    assert refused(text, PhotoFormatError).startswith(f"{side}: ")
    assert refused(tmp_path / "none.jpg", PhotoNotFoundError).startswith(f"{side}: ")


def test_misalignment_is_measured_in_distances_between_the_eyes(crop: Photo, astronaut: Photo) -> None:
    found = misalignment(crop)
    assert found is not None
    assert found < MISALIGNED
    moved = misalignment(np.roll(crop, 12, axis=1))
    assert moved is not None
    assert moved == pytest.approx(12 / 35.2, abs=0.1)
    assert misalignment(np.zeros((112, 112, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize(("levels", "is_copy"), [(7, True), (9, False)])
def test_copies_differ_less_than_two_photographs_of_a_person(
    astronaut: Photo, levels: int, is_copy: bool
) -> None:
    face = prepare_face(astronaut)
    dark = replace(face, image=face.image // 2)
    lighter = replace(face, image=dark.image + np.uint8(levels))
    assert bool(copy_cautions(dark, lighter)) == is_copy
