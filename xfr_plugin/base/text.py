"""Text that comes from outside (paths, names, messages), shown as the text that it is.

A terminal, a picture and a Markdown page each read signs of their own into it: control characters, `[b]`, `:smile:`,
`$…$`, `|`.
"""

from __future__ import annotations

import re

__all__ = ["code_span", "counted", "digits_apart", "markdown_text", "printable"]

_JOINERS = "\u200c\u200d"
"""Invisible, and needed to write Persian and several Indic languages."""

_MOST_DIGITS = 17
_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~$&])")


def printable(text: str) -> str:
    """One line of text: line breaks, control characters, marks that turn the direction of writing, and halves of
    surrogate pairs are written as Python escapes them."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in _JOINERS else ascii(sign)[1:-1] for sign in text)


def markdown_text(text: str) -> str:
    """Text for a Markdown page or a cell of its tables, in which every sign stands for itself."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def code_span(text: str) -> str:
    """Text as code in Markdown; in a table too, where `|` would end the cell."""
    line = printable(text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def counted(number: int, noun: str) -> str:
    """How many of something: `1 pair`, `1,000 pairs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def digits_apart(first: float, second: float, least: int) -> int:
    """How many digits after the point to write of two numbers, so that they and their difference do not look equal
    where they are not.

    Args:
        first, second: the numbers.
        least: digits to write in any case.
    """

    def look_equal(digits: int) -> bool:
        alike = f"{first:.{digits}f}" == f"{second:.{digits}f}"
        return alike or not float(f"{first - second:.{digits}f}")

    digits = least
    while first != second and digits < _MOST_DIGITS and look_equal(digits):
        digits += 1
    return digits
