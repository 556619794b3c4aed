"""Photographs in the place of aligned crops are said aloud, before a number is made of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from xfr_plugin.errors import FaceWarning
from xfr_plugin.evaluation.scenes import warn_of_scenes
from xfr_plugin.faces import prepare_face
from xfr_plugin.faces.folder import FaceFolder

PHOTO: NDArray[np.uint8] = data.astronaut()
SCENES = {
    "a photograph": PHOTO[0:300, 100:400],
    "a scene of a crop's size": np.asarray(Image.fromarray(PHOTO[0:260, 100:360]).resize((112, 112))),
    "a portrait": PHOTO[0:220, 130:330],
}
CROPS = {
    "a crop": prepare_face(PHOTO).image,
    "a larger crop": prepare_face(PHOTO, (224, 224)).image,
    "no face at all": np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8),
}


def warned(folder: Path, images: list[NDArray[np.uint8]]) -> list[str]:
    (folder / "person").mkdir()
    files = [f"person/{number}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(folder / file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_scenes(FaceFolder(folder, (112, 112)), files)
    assert all(warning.category is FaceWarning for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("kind", SCENES)
def test_photographs_are_said_aloud(tmp_path: Path, kind: str) -> None:
    (words,) = warned(tmp_path, [SCENES[kind], SCENES[kind][:, ::-1], CROPS["a crop"]])
    assert words.startswith("person/0.png")
    assert "xfr align" in words


@pytest.mark.parametrize("kind", CROPS)
def test_crops_are_not(tmp_path: Path, kind: str) -> None:
    assert warned(tmp_path, [CROPS[kind], CROPS[kind][:, ::-1], SCENES["a photograph"]]) == []
