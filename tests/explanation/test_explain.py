"""Two photos to an explanation, its documents and pictures; on a small recognizer and on real photographs."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import xfr_plugin
from xfr_plugin import Explanation, FaceWarning, Recognizer, Verification
from xfr_plugin.attr import Fggb
from xfr_plugin.errors import InputError, NoFaceError, ResultError, UnknownNameError
from xfr_plugin.explanation.figures.explanation import overlay
from xfr_plugin.explanation.verification import choose_threshold
from xfr_plugin.faces import ARCFACE_TEMPLATE, Box, DetectedFace, template_regions
from xfr_plugin.recognition import calibrate

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

Photo = NDArray[np.uint8]


@pytest.fixture
def photos(face_photo: Photo) -> tuple[Photo, Photo]:
    return face_photo, np.ascontiguousarray(face_photo[:, ::-1])


@pytest.fixture
def explanation(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> Explanation:
    return xfr_plugin.explain(*photos, recognizer=recognizer, method="fggb", alignment="aligned")


def test_verify_is_the_cosine_of_the_embeddings(recognizer: Recognizer, face_photo: Photo) -> None:
    crop = face_photo[:24, :20]
    other = 255 - crop
    decision = xfr_plugin.verify(crop, other, recognizer=recognizer)
    tensors = torch.from_numpy(np.stack([crop, other]).transpose(0, 3, 1, 2) / 255)
    a, b = recognizer.embed(tensors)
    assert decision.score == pytest.approx(float(a @ b))
    assert decision.margin == pytest.approx(decision.score - 0.2)
    assert decision.match == (decision.score >= 0.2)


def test_a_photo_matches_itself(recognizer: Recognizer, face_photo: Photo) -> None:
    decision = xfr_plugin.verify(face_photo, face_photo, recognizer=recognizer, alignment="aligned")
    assert decision.match
    assert decision.score == pytest.approx(1)
    assert decision.score <= 1


def test_evidence_by_region_adds_up_to_the_maps_total(explanation: Explanation) -> None:
    for face in (explanation.probe, explanation.reference):
        assert sum(region.evidence for region in face.regions) == pytest.approx(
            float(face.saliency.sum()), rel=1e-5
        )
        np.testing.assert_allclose(face.similar - face.dissimilar, face.saliency)
        for region in face.regions:
            assert region.evidence == pytest.approx(region.similar - region.dissimilar)
        assert sum(region.pixels for region in face.regions) == face.saliency.size


def test_explanation_says_how_it_was_made(explanation: Explanation) -> None:
    assert explanation.method == "fggb"
    assert explanation.options["gradient"] == "absolute"
    assert set(explanation.timings) == {"load", "faces", "verify", "explain"}
    *quality, threshold, aligned, caveat = explanation.notes
    assert {note.split(": the face is ")[0] for note in quality} == {"probe", "reference"}  # dull ones
    assert threshold == "the threshold was not calibrated: its error rates are unknown"
    assert aligned == "probe and reference taken as already aligned"
    assert caveat.startswith("fggb: it was judged on too few pairs")
    assert explanation.version == xfr_plugin.__version__


def test_maps_are_those_of_the_attribution_class(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> None:
    options = {"level": "score", "chunk_size": 3}
    explanation = xfr_plugin.explain(
        *photos, recognizer=recognizer, alignment="aligned", method="fggb", options=options
    )
    images = [
        torch.from_numpy(face.image.transpose(2, 0, 1)[None] / 255)
        for face in (explanation.probe, explanation.reference)
    ]
    maps = Fggb(recognizer, 0.2, level="score").attribute(tuple(images))
    np.testing.assert_allclose(explanation.probe.saliency, maps[0][0].sum(0).numpy(), rtol=1e-5)
    np.testing.assert_allclose(explanation.reference.saliency, maps[1][0].sum(0).numpy(), rtol=1e-5)


def test_own_detector_and_choice_of_face(recognizer: Recognizer, face_photo: Photo) -> None:
    found = [DetectedFace(Box(0, 0, s, s), ARCFACE_TEMPLATE * s / 112) for s in (110, 90)]
    with pytest.warns(FaceWarning, match="2 faces"):
        explanation = xfr_plugin.explain(
            face_photo, face_photo, recognizer=recognizer, detector=lambda _: found, faces=(0, 1)
        )
    assert any(note.startswith("reference: 2 faces in the photo: number 1") for note in explanation.notes)
    assert not np.array_equal(explanation.probe.image, explanation.reference.image)
    with pytest.raises(NoFaceError):
        xfr_plugin.verify(face_photo, face_photo, recognizer=recognizer, detector=lambda _: [])


def test_own_regions(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> None:
    regions = template_regions((24, 20))
    explanation = xfr_plugin.explain(*photos, recognizer=recognizer, alignment="aligned", regions=regions)
    assert [region.region for region in explanation.probe.regions] == list(regions.names)
    with pytest.raises(InputError, match="regions"):
        xfr_plugin.explain(*photos, recognizer=recognizer, alignment="aligned", regions=template_regions())


def test_thresholds_and_their_sources(recognizer: Recognizer) -> None:
    calibration = calibrate([0.5, 0.6, 0.7] * 400, [0.0, 0.1, 0.2] * 400, "toy")
    calibrated = Recognizer(nn.Flatten(), calibration=calibration)
    words = "at most 1 false match in {} impostor pairs of toy"
    assert choose_threshold(calibrated) == (calibration.threshold_at(0.001), words.format("1,000"))
    assert choose_threshold(calibrated, fmr=0.01) == (calibration.threshold_at(0.01), words.format("100"))
    few = calibrate([0.5, 0.6, 0.7], [0.0, 0.1, 0.2] * 40, "toy", fmr=(1e-2,))
    threshold, source = choose_threshold(Recognizer(nn.Flatten(), calibration=few))
    assert (threshold, source) == (few.eer.threshold, "equal error rate (0.00% false matches) on toy")
    assert choose_threshold(calibrated, threshold=0.4) == (0.4, "given")
    assert choose_threshold(recognizer) == (0.2, "set with the recognizer")
    for wrong in ({"threshold": 1.5}, {"threshold": 0.1, "fmr": 0.1}, {"fmr": 0.5}):
        with pytest.raises(InputError):
            choose_threshold(calibrated, **wrong)


def test_calibrated_decisions_carry_a_likelihood_ratio(face_photo: Photo) -> None:
    calibration = calibrate([0.5, 0.6, 0.7] * 400, [0.0, 0.1, 0.2] * 400, "toy")
    recognizer = Recognizer(nn.Flatten(), input_size=(4, 4), calibration=calibration)
    decision = xfr_plugin.verify(face_photo, face_photo, recognizer=recognizer, alignment="aligned")
    assert decision.log_likelihood_ratio == pytest.approx(calibration.log_likelihood_ratio(decision.score))
    assert decision.log_likelihood_ratio > 0


def test_broken_weights_give_an_error_and_no_decision(recognizer: Recognizer, face_photo: Photo) -> None:
    with torch.no_grad():
        recognizer.network.get_parameter("fc.bias").fill_(float("nan"))
    with pytest.raises(InputError, match="not a number"):
        xfr_plugin.verify(face_photo, face_photo, recognizer=recognizer, alignment="aligned")


def test_unknown_names(recognizer: Recognizer, face_photo: Photo) -> None:
    with pytest.raises(UnknownNameError, match="method 'gradcan'"):
        xfr_plugin.explain(face_photo, face_photo, recognizer=recognizer, method="gradcan")
    with pytest.raises(UnknownNameError, match="option of fggb 'chunk'"):
        xfr_plugin.explain(face_photo, face_photo, recognizer=recognizer, method="fggb", options={"chunk": 3})


def test_saved_explanation_comes_back_bit_for_bit(explanation: Explanation, tmp_path: Path) -> None:
    picture, document = explanation.save(tmp_path / "new" / "folder")
    assert sorted(entry.name for entry in picture.parent.iterdir()) == ["explanation.json", "explanation.png"]
    loaded = Explanation.load(document)
    assert loaded.verification == explanation.verification
    assert (loaded.method, loaded.notes, loaded.version) == (
        explanation.method,
        explanation.notes,
        explanation.version,
    )
    assert dict(loaded.options) == dict(explanation.options)
    assert dict(loaded.timings) == dict(explanation.timings)
    for side in ("probe", "reference"):
        mine, theirs = getattr(explanation, side), getattr(loaded, side)
        np.testing.assert_array_equal(theirs.image, mine.image)
        np.testing.assert_array_equal(theirs.saliency, mine.saliency)
        assert theirs.regions == mine.regions
    with Image.open(picture) as image:
        assert image.size[0] > 1000


def test_damaged_documents_are_refused(explanation: Explanation, tmp_path: Path) -> None:
    _, document = explanation.save(tmp_path)
    good = json.loads(document.read_text())

    def refuse(content: str, match: str) -> None:
        document.write_text(content)
        with pytest.raises(ResultError, match=match):
            Explanation.load(document)

    refuse("{", "not a saved explanation")
    refuse(json.dumps({**good, "format": "other/2"}), "format")
    refuse(json.dumps({**good, "probe": {**good["probe"], "image_png": "%%%"}}), "image_png.*base64")
    half = {**good["probe"], "saliency": {**good["probe"]["saliency"], "height": 7}}
    refuse(json.dumps({**good, "probe": half}), "height × width")
    text = {**good["probe"], "image_png": base64.b64encode(b"no image").decode()}
    refuse(json.dumps({**good, "probe": text}), "damaged explanation")
    with pytest.raises(ResultError, match="no explanation at"):
        Explanation.load(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written_is_an_error(explanation: Explanation, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ResultError, match="cannot write"):
        explanation.save(blocked)


def test_overlay_colours_say_for_and_against() -> None:
    face = np.full((1, 3, 3), 128, np.uint8)
    image = overlay(face, np.array([[1.0, -1.0, 0.0]]), 1.0)
    assert image[0, 0, 2] > image[0, 0, 0] + 0.3, "blue argues for a match"
    assert image[0, 1, 0] > image[0, 1, 2] + 0.3, "orange argues against"
    assert np.ptp(image[0, 2]) == pytest.approx(0), "grey says nothing"


@pytest.mark.parametrize("width", [112, 370])
def test_overlay_says_against_without_colours(width: int) -> None:
    face = np.full((60, width, 3), 128, np.uint8)
    for sign, spread in ((1, 0.0), (-1, 0.1)):
        grey = overlay(face, np.full(face.shape[:2], float(sign)), 1.0) @ np.array([0.299, 0.587, 0.114])
        assert float(grey.std()) == pytest.approx(spread, abs=0.04)


def test_verification_is_a_json_document() -> None:
    decision = Verification(
        score=0.5,
        threshold=0.3,
        threshold_source="given",
        recognizer="r",
        provenance=xfr_plugin.recognition.Provenance(),
    )
    document = json.loads(decision.model_dump_json())
    assert document["match"] is True
    assert document["margin"] == pytest.approx(0.2)
    assert Verification.model_validate(document) == decision


@pytest.mark.real_data
@pytest.mark.parametrize("method", [pytest.param("fggb", marks=pytest.mark.slow), "xssab"])
def test_genuine_and_impostor_photographs(faces_root: Path, method: str) -> None:
    """The whole chain on real photographs: detection, alignment, decision, maps that lie on the face."""
    photo = faces_root / "lfw250" / "Abel_Pacheco" / "Abel_Pacheco_0001.jpg"
    mate = faces_root / "lfw112" / "Abel_Pacheco" / "Abel_Pacheco_0004.jpg"
    impostor = faces_root / "lfw250" / "AJ_Cook" / "AJ_Cook_0001.jpg"
    genuine = xfr_plugin.explain(photo, mate, recognizer="mobilefacenet_ms1m", method=method)
    assert genuine.verification.match
    assert genuine.verification.score > 0.5
    assert genuine.probe.saliency.sum() > 0
    false = xfr_plugin.explain(photo, impostor, recognizer="mobilefacenet_ms1m", method=method)
    assert not false.verification.match
    assert false.probe.saliency.sum() < 0
    face = template_regions().face
    for explanation in (genuine, false):
        strength = np.abs(explanation.probe.saliency)
        assert strength[face].mean() > 1.2 * strength[~face].mean()


@pytest.mark.slow
@pytest.mark.real_data
def test_signed_gradients_cancel_over_regions(faces_root: Path) -> None:
    """Why `gradient="absolute"` is FGGB's default (docs/methods.md)."""
    folder = faces_root / "lfw112" / "Abel_Pacheco"
    pair = folder / "Abel_Pacheco_0001.jpg", folder / "Abel_Pacheco_0004.jpg"
    largest = {}
    for gradient in ("signed", "absolute"):
        explanation = xfr_plugin.explain(
            *pair, recognizer="mobilefacenet_ms1m", method="fggb", options={"gradient": gradient}
        )
        total = float(np.abs(explanation.reference.saliency).sum())
        largest[gradient] = max(abs(region.evidence) / total for region in explanation.reference.regions)
    assert largest["signed"] < 0.02
    assert largest["absolute"] > 0.1
