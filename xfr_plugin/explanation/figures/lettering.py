"""What is written on figures is text and no formula, and can be read on its ground; colours for everybody."""

from __future__ import annotations

import numpy as np
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from xfr_plugin.base.text import printable

__all__ = ["COLOURS", "HATCHES", "as_written", "ink_on"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's (2008), which people with any common colour blindness can tell apart."""

HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\")
"""What tells bars of the same colours apart where there are none."""


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


def ink_on(ground: ScalarMappable, value: float) -> str:
    """Black or white, whichever has the better contrast (WCAG) on the colour that a picture gives a value."""
    rgb = np.asarray(ground.to_rgba(np.array([value])))[0, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "black" if luminance > 0.179 else "white"  # there, both have 4.58 to 1
