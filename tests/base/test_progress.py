"""Bars of long work, in a terminal and in a notebook without widgets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xfr_plugin import ProgressBar, compare
from xfr_plugin.bulk import Step
from xfr_plugin.recognition import Recognizer

_NOTEBOOK = """
import sys, types
import IPython
sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")  # what tqdm looks for
sys.modules["ipywidgets"] = None
import xfr_plugin.base.captum
from xfr_plugin import ProgressBar
bar = ProgressBar()
bar("looking", 1, 2)
bar("looking", 2, 2)
"""


def test_steps_fill_a_bar_for_each_kind_of_work(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    for step in (Step("faces", 1, 2, None), Step("faces", 2, 2, 0.0), Step("pairs", 1, 3, None)):
        bar(step)
    bar.close()
    said = capsys.readouterr().err
    assert "faces: 100%" in said
    assert "2/2" in said
    assert "pairs:  33%" in said
    assert "1/3" in said


@pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor
def test_a_comparison_shows_its_methods(
    recognizer: Recognizer, face_photo: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    compare(
        face_photo, face_photo, recognizer=recognizer, methods=["xssab", "input_x_gradient"],
        alignment="aligned", progress=ProgressBar(),
    )  # fmt: skip
    said = capsys.readouterr().err
    assert "xssab" in said
    assert "input_x_gradient" in said


def test_a_notebook_without_widgets_is_not_warned(tmp_path: Path) -> None:
    pytest.importorskip("IPython", reason="IPython is not installed (extra `dev`)")
    command = [sys.executable, "-W", "error::Warning:tqdm", "-W", "default", "-c", _NOTEBOOK]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "2/2" in done.stderr
    assert "IProgress" not in done.stderr
    assert "Warning" not in done.stderr
