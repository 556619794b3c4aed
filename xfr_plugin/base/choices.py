"""Words by which callers choose, and what is taken if they do not; imports nothing, for the command line's sake."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["DEFAULT_RECOGNIZER", "Alignment"]

DEFAULT_RECOGNIZER = "xfr_compact128"
"""The recognizer that ships with the package."""

Alignment: TypeAlias = Literal["auto", "detect", "aligned"]
"""How to treat a photo: find the face and align it (`detect`), take it as an aligned crop (`aligned`), or
(`auto`) take it as aligned if it has exactly the size of the crop, and detect otherwise."""
