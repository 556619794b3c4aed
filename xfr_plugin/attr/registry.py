"""What a method's name on the command line stands for, and which method explains if none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xfr_plugin.attr._base.method import METHODS, Method, Need
from xfr_plugin.errors import UnknownNameError

if TYPE_CHECKING:
    from xfr_plugin.recognition.recognizer import Recognizer

__all__ = [
    "AUTO",
    "METHODS",
    "Method",
    "Need",
    "chosen_method",
    "default_method",
    "fast_method",
    "get_method",
    "preferred_methods",
]

AUTO = "auto"
"""Instead of a method's name: the default method of the recognizer."""


def preferred_methods() -> list[Method]:
    """Methods that stand in for others, those that point best at known evidence first."""
    ranked = [(method.preferred, method) for method in METHODS.values() if method.preferred is not None]
    return [method for _, method in sorted(ranked, key=lambda pair: pair[0])]


def default_method(recognizer: Recognizer) -> str:
    """Name of the method that explains unless another is asked for: the first of the preferred that can.

    That is `leave_one_out`, which needs nothing but scores and takes about 100 forward passes; see `fast_method` for
    one or two.
    """
    return next(method.name for method in preferred_methods() if method.serves(recognizer))


def fast_method(recognizer: Recognizer) -> str:
    """Name of the method to take where `leave_one_out` is too slow: the first of the preferred ones that are quick.

    That is `reconstruction` where a decoder with regional evidence ships for the recognizer, or else `xssab`, which
    needs nothing but the network. For a recognizer that gives no gradient none may be quick: then it is the default.
    """
    quick = (method.name for method in preferred_methods() if method.quick and method.serves(recognizer))
    return next(quick, None) or default_method(recognizer)


def get_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        UnknownNameError: no method of this name.
    """
    if name not in METHODS:
        raise UnknownNameError.of("method", name, METHODS)
    return METHODS[name]


def chosen_method(name: str | None, recognizer: Recognizer) -> Method:
    """Return a method by name; the recognizer's default method for `auto` or None.

    Raises:
        UnknownNameError: no method of this name.
    """
    return get_method(default_method(recognizer) if name is None or name == AUTO else name)
