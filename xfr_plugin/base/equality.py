"""Equality of frozen values that hold arrays, which `==` of dataclasses cannot compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["ArraysCompared", "same"]


class ArraysCompared:
    """Dataclasses (with `eq=False`) that are equal if all their fields are; arrays value by value, NaN as NaN."""

    def __eq__(self, other: object) -> bool:
        return same(self, other) if type(other) is type(self) else NotImplemented


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal."""
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return _same_arrays(first, second)
    if type(first) is not type(second) and not isinstance(first, (int, float, Mapping)):
        return False
    if is_dataclass(first) and not isinstance(first, type):
        return all(same(getattr(first, each.name), getattr(second, each.name)) for each in fields(first))
    if isinstance(first, Mapping):
        alike = isinstance(second, Mapping) and first.keys() == second.keys()
        return alike and all(same(value, second[name]) for name, value in first.items())
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def _same_arrays(first: Any, second: Any) -> bool:
    if not (isinstance(first, np.ndarray) and isinstance(second, np.ndarray)):
        return False
    kinds = first.dtype == second.dtype and first.shape == second.shape
    numbers = np.issubdtype(first.dtype, np.inexact)
    return kinds and bool(np.array_equal(first, second, equal_nan=numbers))
