"""Further arguments of models: those that have a row for each image follow what is done to the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from torch import Tensor

__all__ = ["has_rows", "with_rows"]


def has_rows(value: Any, count: int) -> TypeGuard[Tensor]:
    """Whether an argument has a row for each of `count` images."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


def with_rows(arguments: Iterable[Any], count: int, change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """Arguments of which those with a row for each of `count` images are changed; the others are as they were."""
    return tuple(change(value) if has_rows(value, count) else value for value in arguments)
