"""Answers in notebooks and in tests of users: pictures, tables, a short repr, and `==` that answers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin import Comparison, Explanation, Recognizer, compare, explain
from xfr_plugin.base.equality import same
from xfr_plugin.explanation.matches import match_regions

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor


@pytest.fixture
def photos(face_photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return face_photo, np.ascontiguousarray(face_photo[:, ::-1])


@pytest.fixture
def explanation(recognizer: Recognizer, photos: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> Explanation:
    return explain(*photos, recognizer=recognizer, method="xssab", alignment="aligned")


@pytest.fixture
def comparison(recognizer: Recognizer, photos: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> Comparison:
    return compare(*photos, recognizer=recognizer, methods=("xssab", "fggb"), alignment="aligned")


def test_a_notebook_shows_the_picture_and_says_it_in_words(explanation: Explanation) -> None:
    with Image.open(io.BytesIO(explanation._repr_png_())) as picture:
        assert picture.size == explanation.picture().size
    risky = replace(explanation, method="<script>", notes=("<script>: 1 < 2",))
    page = risky._repr_html_()
    assert page.startswith('<figure><img src="data:image/png;base64,')
    assert "<script>" not in page
    assert "&lt;script&gt;: 1 &lt; 2" in page
    assert "most for a match" in page
    assert isinstance(explanation.figure(), Figure)


def test_the_repr_is_short(explanation: Explanation, comparison: Comparison) -> None:
    assert repr(explanation).startswith("Explanation(match, score 0.9")
    assert repr(explanation.probe) == "FaceExplanation(24×20, 11 regions)".replace(
        "11", str(len(explanation.probe.regions))
    )
    assert repr(comparison).endswith("2 methods)")
    assert max(len(repr(value)) for value in (explanation, comparison, explanation.verification)) < 120


def test_equality_answers(explanation: Explanation, comparison: Comparison, tmp_path: Path) -> None:
    assert explanation == replace(explanation)
    assert explanation == Explanation.load(explanation.save(tmp_path)[1])
    changed = explanation.probe.saliency.copy()
    changed[0, 0] += 1
    assert explanation != replace(explanation, probe=replace(explanation.probe, saliency=changed))
    assert explanation != "something else"
    assert comparison == replace(comparison)
    assert comparison != replace(comparison, notes=("other",))


def test_equality_of_what_they_hold() -> None:
    numbers = np.array([1.0, np.nan])
    assert same({"a": [numbers, 1]}, {"a": [numbers.copy(), 1.0]})
    assert not same(numbers, numbers.astype(np.float32))
    assert not same(numbers, [1.0, np.nan])
    assert not same({"a": 1}, {"b": 1})
    assert not same((1, 2), (1, 2, 3))
    assert not same((1, 2), [1, 2])


def test_tables_hold_a_row_for_each_face_and_region(explanation: Explanation, comparison: Comparison) -> None:
    pytest.importorskip("pandas", reason="data frames need pandas")
    table = explanation.to_dataframe()
    assert len(table) == 2 * len(explanation.probe.regions)
    assert table["share_percent"].abs().sum() == pytest.approx(200, rel=0.5)
    assert table.loc[0, "evidence"] == explanation.probe.regions[0].evidence
    assert set(comparison.to_dataframe()["method"]) == {"xssab", "fggb"}


def test_dictionaries_hold_the_documents(explanation: Explanation, comparison: Comparison) -> None:
    assert explanation.to_dict()["format"] == "xfr-explanation/1"
    assert comparison.to_dict()["format"] == "xfr-comparison/1"


def test_comparisons_and_matches_show_their_figures(
    comparison: Comparison, recognizer: Recognizer, photos: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    pytest.importorskip("pandas", reason="data frames need pandas")
    matches = match_regions(*photos, recognizer=recognizer, alignment="aligned")
    for shown in (comparison, matches):
        with Image.open(io.BytesIO(shown._repr_png_())) as picture:
            assert picture.size[0] > 1000
    assert len(matches.to_dataframe()) == len(matches.regions.names) ** 2
    assert repr(matches).startswith("RegionMatches(")
