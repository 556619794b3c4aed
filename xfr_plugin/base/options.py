"""Checks of options: what is returned can be used."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TypeVar

from xfr_plugin.errors import InputError

__all__ = ["checked_at_least", "checked_choice"]

Choice = TypeVar("Choice")
Number = TypeVar("Number", int, float)


def checked_choice(name: str, value: Choice, *known: object) -> Choice:
    """Return an option's value if it is one of those known.

    Raises:
        InputError: it is another.
    """
    if value not in known:
        *others, last = map(repr, known)
        raise InputError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")
    return value


def checked_at_least(name: str, value: Number, least: Number) -> Number:
    """Return an option's value if it is large enough.

    Raises:
        InputError: it is no number, no whole one where the least is one, or below the least that makes sense.
    """
    kind, words = (Integral, "a whole number") if isinstance(least, int) else (Real, "a number")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{name} must be {words}, got {value!r}")
    if not value >= least:
        raise InputError(f"{name} must be at least {least}, got {value}")
    return value
