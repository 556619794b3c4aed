"""What is written on figures is text and no formula."""

from __future__ import annotations

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from xfr_plugin.base.text import printable

__all__ = ["as_written"]


def as_written(figure: Figure) -> Figure:
    """Let every sign on a finished figure stand for itself: names and notes come from outside, and `$` is theirs.

    Numbers that Matplotlib itself writes beside an axis keep their powers of ten.
    """
    numbers = {
        id(label)
        for axis in figure.findobj(Axis)
        if isinstance(axis, Axis) and not isinstance(axis.get_major_locator(), FixedLocator)
        for label in axis.findobj(Text)
        if label is not axis.label
    }
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in numbers:
            shown = "\n".join(map(printable, text.get_text().split("\n")))
            text.set_parse_math(text.get_wrap())  # what is wrapped is measured as a formula all the same
            text.set_text(shown.replace("$", r"\$") if text.get_wrap() else shown)
    return figure
