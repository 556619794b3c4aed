"""The picture of an explanation: what is on it, in colour and without, and that names from outside are text."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin import Explanation, explain
from xfr_plugin.explanation.explanation import FaceExplanation, region_evidence
from xfr_plugin.explanation.figures.canvas import Canvas, text_width, wrapped
from xfr_plugin.explanation.figures.explanation import (
    explained_face,
    explanation_figure,
    explanation_picture,
    explanation_png,
)
from xfr_plugin.faces import RegionMap, template_regions
from xfr_plugin.recognition import Recognizer, calibrate

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

NAMES = (r"$\badcommand$", "$a_b$", "[b]:smile:", "\x1b[2J")


@pytest.fixture
def explanation(recognizer: Recognizer, face_photo: NDArray[np.uint8]) -> Explanation:
    photos = face_photo, np.ascontiguousarray(face_photo[:, ::-1])
    return explain(*photos, recognizer=recognizer, method="xssab", alignment="aligned")


def written(explanation: Explanation) -> str:
    with Image.open(io.BytesIO(explanation_png(explanation))) as picture:
        text: str = picture.info["Description"]
    return " ".join(text.split("\n"))


def with_shares(explanation: Explanation, evidence: dict[str, float]) -> Explanation:
    """The explanation with maps that hold this evidence, even over each region."""
    regions = template_regions((24, 20))
    values = np.zeros(regions.size, dtype=np.float32)
    for name, total in evidence.items():
        values[regions.mask(name)] = total / regions.areas()[name]
    face = FaceExplanation(explanation.probe.image, values, region_evidence(values, regions), regions)
    return replace(explanation, probe=face, reference=face)


def test_a_picture_says_decision_score_and_what_argues_most(explanation: Explanation) -> None:
    shown = written(with_shares(explanation, {"mouth": 3.0, "nose": -1.0}))
    decision = explanation.verification
    assert f"{decision.score:.3f}".replace("-", "−") in shown
    assert "most for a match: mouth" in shown
    assert "most against: nose" in shown
    assert "+75" in shown
    assert "−25" in shown


def test_hair_and_background_are_listed_apart_and_never_as_the_face(explanation: Explanation) -> None:
    regions = template_regions((24, 20))
    away = regions.names[0]
    shown = written(with_shares(explanation, {away: 3.0, "mouth": 1.0}))
    assert "most for a match: mouth" in shown
    assert "most of the evidence is not of the face" in shown


def test_what_argues_against_is_hatched_so_that_no_colour_is_needed(explanation: Explanation) -> None:
    for sign, lines in ((1, False), (-1, True)):
        face = with_shares(explanation, {"nose": sign * 1.0}).probe
        one = RegionMap(np.zeros_like(face.region_map.labels), face.region_map.names)  # which has no outlines
        drawn = np.asarray(explained_face(replace(face, region_map=one), 1e-4, 200).image.convert("L"))
        row = drawn[drawn.shape[0] * 6 // 10, 85:115].astype(int)
        assert (np.abs(np.diff(row)).max() > 25) == lines


@pytest.mark.parametrize("width", [120, 280, 370, 560])
def test_no_number_on_a_map_lies_over_another_or_is_cut_off(explanation: Explanation, width: int) -> None:
    """As on the slivers of a face in profile, and at the border; what has no room stands in the chart."""
    labels = np.zeros((24, 20), dtype=np.uint8)
    for place, column in enumerate((0, 8, 9, 10, 19), start=1):
        labels[10:14, column] = place
    regions = RegionMap(labels, ("background", "right_ear", "nose", "right_eye", "mouth", "left_ear"))
    values = np.where(labels, labels * np.float32(0.1), 0).astype(np.float32)
    face = FaceExplanation(explanation.probe.image, values, region_evidence(values, regions), regions)
    drawn = explained_face(face, 1.0, width)
    assert "+33" in drawn.written, "the strongest is never left out"
    size = round(14 * max(1, width / 370))
    room = [text_width(words, size, bold=True) for words in drawn.written]
    assert sum(room) < width
    right = np.asarray(drawn.image)[:, -3:].reshape(-1, 3)
    assert not (right == 0).all(axis=1).any(), "letters keep off the border"
    chart = written(replace(explanation, probe=face, reference=face))
    assert all(f"+{share:.1f}" in chart for share in (100 * n / 15 for n in range(1, 6)))


def test_calibrated_recognizers_show_how_scores_lie(
    face_photo: NDArray[np.uint8], recognizer: Recognizer
) -> None:
    rng = np.random.default_rng(0)
    found = calibrate(rng.normal(0.6, 0.1, 1500), rng.normal(0, 0.1, 1500), "toy")
    known = Recognizer(recognizer.network, input_size=(24, 20), calibration=found)
    answer = explain(
        face_photo, face_photo[::-1].copy(), recognizer=known, method="xssab", alignment="aligned"
    )
    assert answer.calibration == found
    assert "one person" in written(answer)
    assert "two people" in written(answer)
    assert "at most 1 false match in 1,000 impostor pairs of toy" in written(answer)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_notes_are_text(explanation: Explanation, name: str) -> None:
    decision = explanation.verification.model_copy(update={"recognizer": name, "threshold_source": name})
    shown = written(replace(explanation, verification=decision, method=name, notes=(name,)))
    assert shown.count(name.replace("\x1b", r"\x1b")) >= 3


def test_regions_of_others_have_their_names(recognizer: Recognizer, face_photo: NDArray[np.uint8]) -> None:
    labels = np.zeros(recognizer.input_size, dtype=np.uint8)
    labels[5:15, 5:15] = 1
    regions = RegionMap(labels, ("outside", "third_eye"))
    answer = explain(
        face_photo, face_photo[::-1].copy(), recognizer=recognizer, method="xssab", alignment="aligned",
        regions=regions,
    )  # fmt: skip
    assert "third eye" in written(answer)


def test_regions_come_back_with_the_document(explanation: Explanation, tmp_path: Path) -> None:
    loaded = Explanation.load(explanation.save(tmp_path)[1])
    for mine, theirs in ((explanation.probe, loaded.probe), (explanation.reference, loaded.reference)):
        assert theirs.region_map.names == mine.region_map.names
        np.testing.assert_array_equal(theirs.region_map.labels, mine.region_map.labels)
    assert explanation_png(loaded) == explanation_png(explanation)


def test_the_figure_is_the_picture(explanation: Explanation) -> None:
    picture, figure = explanation_picture(explanation), explanation_figure(explanation)
    assert picture.width == 1600
    assert figure.get_size_inches().tolist() == [picture.width / 100, picture.height / 100]


def test_a_number_keeps_its_error_and_its_unit() -> None:
    for width in range(130, 400, 7):
        lines = wrapped("the nose (−14 ± 2 %), the mouth (+3 ± 1 %) and 20 % of the picture", width, 16)
        assert not any(line.startswith(("%", "±")) or line.endswith("±") for line in lines)


def test_lines_fit_and_lose_no_letter() -> None:
    words = "short words and aveeeeeeeeeeeeeeeeeeeeeeeeeeeeerylongone " * 3
    lines = wrapped(words, 120, 16)
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")
    canvas = Canvas(200, 200)
    assert max(canvas.text((0, 0), line) for line in lines) <= 120
