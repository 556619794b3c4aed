"""Warnings that one thread does not want.

`warnings.catch_warnings` exchanges the filters of the whole process: in that time warnings of other threads are lost,
and two blocks that overlap can leave the wrong filters for good.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["ignoring"]

_CATEGORIES: ContextVar[tuple[type[Warning], ...]] = ContextVar("ignored warnings", default=())


class _OfThisThread(type):
    def __subclasscheck__(cls, category: type) -> bool:
        return issubclass(category, _CATEGORIES.get())


class _Ignored(Warning, metaclass=_OfThisThread):
    """Counts those categories among its subclasses that this thread ignores now."""


@contextmanager
def ignoring(*categories: type[Warning]) -> Iterator[None]:
    """Ignore warnings of these categories, in this thread.

    One filter stays in `warnings.filters`; outside of such blocks it fits no warning.
    """
    if not warnings.filters or warnings.filters[0][2] is not _Ignored:
        warnings.simplefilter("ignore", _Ignored)
    token = _CATEGORIES.set((*_CATEGORIES.get(), *categories))
    try:
        yield
    finally:
        _CATEGORIES.reset(token)
