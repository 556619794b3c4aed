"""Eyes or a mouth that may be covered are said aloud; a face that shows them is not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from xfr_plugin.errors import InputError
from xfr_plugin.explanation.occlusion import PARTS, covered_parts, describe, load_appearance
from xfr_plugin.explanation.quality import face_cautions
from xfr_plugin.faces import AlignedFace, prepare_face
from xfr_plugin.training.appearance import fit_appearance

Photo = NDArray[np.uint8]


@pytest.fixture(scope="module")
def face() -> AlignedFace:
    return prepare_face(data.astronaut())


def _barred(image: Photo, rows: slice) -> Photo:
    changed = image.copy()
    changed[rows, 16:96] = (20, 20, 24)
    return changed


def test_what_hides_eyes_or_mouth_is_named(face: AlignedFace) -> None:
    assert covered_parts(face.image) == ()
    assert covered_parts(_barred(face.image, slice(42, 62))) == ("eyes",)
    assert covered_parts(_barred(face.image, slice(76, 112))) == ("mouth",)


def test_the_caution_says_which_photo_and_which_part(face: AlignedFace) -> None:
    covered = AlignedFace(**{**vars(face), "image": _barred(face.image, slice(42, 62))})
    assert [caution.code for caution in face_cautions("probe", face)] == []
    (caution,) = face_cautions("reference", covered)
    assert caution.code == "occluded"
    assert str(caution).startswith("reference: the eyes may be covered")


def test_light_contrast_and_the_size_of_the_crop_hardly_matter(face: AlignedFace) -> None:
    model = load_appearance()
    odd = model.oddities(describe(face.image))
    dim = model.oddities(describe((face.image // 2 + 40).astype(np.uint8)))
    for part in PARTS:
        assert dim[part] == pytest.approx(odd[part], rel=0.25)
    large = prepare_face(data.astronaut(), (224, 192)).image
    assert covered_parts(large) == ()
    assert covered_parts(large[:, 10:-10]) == ()


def test_the_oddest_of_other_people_are_above_the_limits() -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (220, 112, 112, 3), dtype=np.uint8)
    model = fit_appearance(faces[:110], faces[110:], flagged=0.1)
    found = [model.oddities(describe(face)) for face in faces[110:]]
    for part in PARTS:
        assert sum(odd[part] > model.limits[part] for odd in found) == 11
    with pytest.raises(InputError, match="hundred"):
        fit_appearance(faces[:110], faces[:9])
