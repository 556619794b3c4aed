"""A picture that is written and drawn on with Pillow: ten times as fast as a figure of Matplotlib.

Matplotlib takes about a second for such a picture: it measures every text several times to lay out 14 axes, makes 100
ticks that nobody sees, and compresses slowly.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from xfr_plugin.base.text import printable

__all__ = ["Canvas", "Colour", "Point", "hatched", "line_height", "text_width", "wrapped"]

Colour: TypeAlias = str | tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

_FINE = 3
"""Shapes are drawn three times as large and reduced, so that slanted edges are smooth."""


_UNBROKEN = re.compile(r"(?<!±)\s+(?![±%])")
"""Where a line may end: a number keeps its error and its unit."""


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which knows Greek, Cyrillic and mathematical signs; it comes with Matplotlib."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None  # a dependency
    assert found.origin is not None
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(folder / name, size, layout_engine=ImageFont.Layout.BASIC)


class Canvas:
    """A white picture of a width and height in pixels.

    Attributes:
        image: what was drawn.
        written: every text that is on it, in the order of writing.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.written: list[str] = []
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self,
        place: Point,
        words: str,
        size: int = 16,
        *,
        bold: bool = False,
        colour: Colour = "black",
        anchor: str = "la",
        halo: Colour | None = None,
    ) -> float:
        """Write one line, and return its width. For `anchor` see Pillow; `halo` is a rim around the letters."""
        line, font = printable(words), _font(size, bold)
        self.written.append(line)
        width = 0 if halo is None else 2
        self._draw.text(
            place, line, font=font, fill=colour, anchor=anchor, stroke_width=width, stroke_fill=halo
        )
        return text_width(line, size, bold)

    def paragraph(self, place: Point, words: str, width: float, size: int = 16) -> float:
        """Write text in lines of at most this width, and return the height that it takes."""
        lines = wrapped(words, width, size)
        for number, line in enumerate(lines):
            self.text((place[0], place[1] + number * line_height(size)), line, size)
        return len(lines) * line_height(size)

    def box(
        self, corners: tuple[float, float, float, float], fill: Colour, rim: Colour | None = None
    ) -> None:
        """Fill a rectangle (left, top, right, bottom)."""
        self._draw.rectangle(corners, fill=fill, outline=rim)

    def line(self, points: Sequence[Point], colour: Colour = "black", width: int = 1) -> None:
        """Draw a line."""
        self._draw.line(list(points), fill=colour, width=width)

    def polygon(self, points: Sequence[Point], fill: Colour, rim: Colour | None = None) -> None:
        """Draw a polygon with smooth edges; of its rim, which is 1.5 pixels wide, all but what closes it."""
        xs, ys = zip(*points, strict=True)
        left, top = int(min(xs)) - 2, int(min(ys)) - 2
        size = (int(max(xs)) + 3 - left, int(max(ys)) + 3 - top)
        moved = [((x - left) * _FINE, (y - top) * _FINE) for x, y in points]
        fine = self.image.crop((left, top, left + size[0], top + size[1])).resize(
            (size[0] * _FINE, size[1] * _FINE), Image.Resampling.NEAREST
        )
        draw = ImageDraw.Draw(fine)
        draw.polygon(moved, fill=fill)
        if rim is not None:
            draw.line(moved, fill=rim, width=round(1.5 * _FINE), joint="curve")
        self.paste(fine.resize(size, Image.Resampling.BOX), (left, top))

    def paste(self, image: Image.Image, place: tuple[int, int]) -> None:
        """Lay a picture on it."""
        self.image.paste(image, place)


def wrapped(words: str, width: float, size: int) -> list[str]:
    """Lines of at most this width in pixels; what is longer than a line alone is broken."""
    lines: list[str] = []
    line, used, space = "", 0.0, text_width(" ", size)
    for word in _pieces(printable(words), width, size):
        own = text_width(word, size)
        if line and used + space + own > width:
            lines.append(line)
            line, used = word, own
        else:
            line, used = (f"{line} {word}", used + space + own) if line else (word, own)
    return [*lines, line] if line else lines


@lru_cache(maxsize=4096)
def text_width(word: str, size: int, bold: bool = False) -> float:
    """Width in pixels of printable text."""
    return float(_font(size, bold).getlength(word))


def _pieces(words: str, width: float, size: int) -> Iterator[str]:
    """Words, and parts of those that are longer than a line."""
    for word in _UNBROKEN.split(words.strip()):
        while text_width(word, size) > width and len(word) > 1:
            fits = next(
                n for n in range(len(word) - 1, 0, -1) if n == 1 or text_width(word[:n], size) <= width
            )
            yield word[:fits]
            word = word[fits:]
        yield word


def line_height(size: int) -> int:
    """Distance of lines in pixels."""
    return round(1.32 * size)


def hatched(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Slanted stripes H×W, some forty on a picture's width: what tells colours apart where there are none."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = max(4, round(shape[1] / 41))
    stripes: NDArray[np.bool_] = (rows + columns) % distance < max(1, round(distance / 4.5))
    return stripes
