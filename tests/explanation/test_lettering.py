"""What is written on pictures is text: names of recognizers, methods and files are no formulas."""

from __future__ import annotations

import io

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from xfr_plugin.explanation.figures.lettering import as_written

NAMES = (r"$\badcommand$", "$a_b$", r"price \$5", "$^$", r"\frac{1}{2} $x", "$$")


def drawn(figure: Figure) -> list[str]:
    """What is written, once the picture is made, as Matplotlib has read it."""
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    return [text._preprocess_math(text.get_text())[0] for text in texts]


@pytest.mark.parametrize("name", NAMES)
def test_names_on_a_figure_are_text(name: str) -> None:
    figure = Figure()
    axes: Axes = figure.add_subplot()
    axes.set_title(name)
    axes.set_xticks([0], [name])
    assert drawn(as_written(figure)).count(name) >= 2


def test_control_characters_are_escaped() -> None:
    figure = Figure()
    figure.suptitle("a\x1b[2Jb\x00")
    assert r"a\x1b[2Jb\x00" in drawn(as_written(figure))


def test_numbers_of_a_logarithmic_axis_keep_their_powers() -> None:
    figure = Figure()
    axes: Axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(1, 1e9), title="$a$")
    figure.savefig(io.BytesIO(), dpi=20)
    as_written(figure).savefig(io.BytesIO(), dpi=20)
    assert any(label.get_parse_math() and "10^" in label.get_text() for label in axes.get_xticklabels())
    assert not axes.title.get_parse_math()
