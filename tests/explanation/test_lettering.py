"""What is written on pictures is text: names of recognizers, methods and files are no formulas."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from xfr_plugin import explain
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.explanation.figures.explanation import explanation_figure
from xfr_plugin.explanation.figures.lettering import as_written
from xfr_plugin.faces import RegionMap
from xfr_plugin.recognition import Recognizer

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

NAMES = (r"$\badcommand$", "$a_b$", r"price \$5", "$^$", r"\frac{1}{2} $x", "$$")


def drawn(figure: Figure) -> list[str]:
    """What is written, once the picture is made, as Matplotlib has read it."""
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    return [text._preprocess_math(text.get_text())[0] for text in texts]


@pytest.fixture
def explanation(recognizer: Recognizer, face_photo: NDArray[np.uint8]) -> Explanation:
    photos = face_photo, np.ascontiguousarray(face_photo[:, ::-1])
    return explain(*photos, recognizer=recognizer, method="xssab", alignment="aligned")


@pytest.mark.parametrize("name", NAMES)
def test_names_and_notes_on_the_picture_of_an_explanation(explanation: Explanation, name: str) -> None:
    decision = explanation.verification.model_copy(update={"recognizer": name, "threshold_source": name})
    figure = explanation_figure(replace(explanation, verification=decision, method=name, notes=(name,)))
    assert any(text.count(name) == 4 for text in drawn(figure))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_regions_beside_an_axis(
    recognizer: Recognizer, face_photo: NDArray[np.uint8], name: str
) -> None:
    labels = np.zeros(recognizer.input_size, dtype=np.uint8)
    labels[5:15, 5:15] = 1
    explanation = explain(
        face_photo, face_photo[::-1].copy(), recognizer=recognizer, method="xssab", alignment="aligned",
        regions=RegionMap(labels, ("outside", name)),
    )  # fmt: skip
    shown = name.replace("_", " ")
    assert any(shown in text for text in drawn(explanation_figure(explanation)))


def test_control_characters_are_escaped(explanation: Explanation) -> None:
    texts = drawn(explanation_figure(replace(explanation, notes=("a\x1b[2Jb\x00",))))
    assert any(r"a\x1b[2Jb\x00" in text for text in texts)


def test_numbers_of_a_logarithmic_axis_keep_their_powers() -> None:
    figure = Figure()
    axes: Axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(1, 1e9), title="$a$")
    figure.savefig(io.BytesIO(), dpi=20)
    as_written(figure).savefig(io.BytesIO(), dpi=20)
    assert any(label.get_parse_math() and "10^" in label.get_text() for label in axes.get_xticklabels())
    assert not axes.title.get_parse_math()
