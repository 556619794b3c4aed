"""The demonstration's edits, and the demonstration itself, on what the package ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from xfr_plugin import Explanation, load_recognizer
from xfr_plugin.cli.demonstration import (
    EDITS,
    run_demo,
    with_another_nose,
    with_covered_mouth,
    with_sunglasses,
)
from xfr_plugin.cli.xfr import app
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER
from xfr_plugin.faces import ARCFACE_TEMPLATE


def test_edits_change_what_they_say(face_photo: NDArray[np.uint8]) -> None:
    for name, edit in EDITS.items():
        copy = edit(face_photo, ARCFACE_TEMPLATE)
        assert copy.shape == face_photo.shape, name
        assert copy.dtype == np.uint8
        assert (copy != face_photo).any()


def test_local_edits_leave_the_rest_alone(face_photo: NDArray[np.uint8]) -> None:
    masked = with_sunglasses(face_photo, ARCFACE_TEMPLATE)
    np.testing.assert_array_equal(masked[80:], face_photo[80:])
    assert masked[52, 38].max() < 20
    covered = with_covered_mouth(face_photo, ARCFACE_TEMPLATE)
    np.testing.assert_array_equal(covered[:75], face_photo[:75])
    assert covered[92, 56].max() < 20
    twisted = with_another_nose(face_photo, ARCFACE_TEMPLATE)
    changed = np.abs(twisted.astype(int) - face_photo).max(axis=2) > 2
    assert changed[55:80, 45:67].mean() > 10 * changed[105:].mean()


def test_demo_ends_with_the_commands_for_report_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xfr_plugin.cli.demonstration.run_demo", lambda *_: [("a pair: match.", tmp_path)])
    said = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)]).output
    assert "a pair: match." in said
    assert "xfr report" in said
    assert "xfr web" in said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::xfr_plugin.FaceWarning")
def test_demo_writes_photographs_and_explanations(tmp_path: Path) -> None:
    pictures = run_demo(tmp_path, load_recognizer(DEFAULT_RECOGNIZER))
    assert len(pictures) == len(EDITS) + 1
    for result, picture in pictures:
        assert picture.is_file()
        assert "most against: " in result
        assert ("no match. The score" in result) == ("two people" in result), result
    for name, covered in (("with_sunglasses", ("right_eye", "left_eye")), ("with_covered_mouth", ("mouth",))):
        explanation = Explanation.load(tmp_path / f"explained_{name}.json")
        for region in covered:
            net = sum(
                found.evidence
                for face in (explanation.probe, explanation.reference)
                for found in face.regions
                if found.region == region
            )
            assert net < 0, f"{region} is covered in one face, and argues for a match"
