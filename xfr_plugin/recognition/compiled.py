"""What a runtime compiles a network into: once for each process and number of threads."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.errors import InputError

__all__ = ["Compiled", "in_batches", "pixel_layout", "required"]

_T = TypeVar("_T")


class Compiled(Generic[_T]):
    """A program that is made when it is first wanted, for as many threads as torch computes on.

    Threads of a runtime do not survive a fork, so that a forked process makes its own. What is made may be used by
    any number of threads at once. A copy, and what is pickled, makes its own.

    Args:
        make: from a number of threads to the program.
    """

    def __init__(self, make: Callable[[int], _T]) -> None:
        self._make = make
        self._made: dict[tuple[int, int], _T] = {}
        self._lock = threading.Lock()

    def __call__(self) -> _T:
        """The program for this process and number of threads."""
        key = (os.getpid(), torch.get_num_threads())
        found = self._made.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(key[1])
            return self._made[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return Compiled, (self._make,)


def required(module: str, extra: str) -> ModuleType:
    """Import what an extra of this package brings.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module} is not installed: install the extra '{extra}', pip install 'xfr-plugin[{extra}]'"
        ) from error


def pixel_layout(shape: list[Any]) -> tuple[tuple[int, int] | None, bool, int | None]:
    """Height and width, whether colours come last, and the number of images, of an input's shape.

    Numbers that are not fixed are None.
    """
    fixed = [side if isinstance(side, int) and side > 0 else None for side in shape]
    last = fixed[3] == 3 and fixed[1] != 3
    height, width = fixed[1:3] if last else fixed[2:4]
    return (None if height is None or width is None else (height, width)), last, fixed[0]


def in_batches(
    run: Callable[[NDArray[Any]], list[NDArray[Any]]], images: Tensor, last: bool, count: int | None
) -> list[Tensor]:
    """What a program gives of images N×3×H×W, which takes any number of them, or `count` at a time."""
    pixels = images.permute(0, 2, 3, 1) if last else images
    rows = np.ascontiguousarray(pixels.detach().to("cpu", torch.float32).numpy())
    if count is None:
        return [torch.from_numpy(np.asarray(part)) for part in run(rows)]
    parts = []
    for start in range(0, len(rows), count):
        some = rows[start : start + count]
        padded = np.concatenate((some, np.repeat(some[-1:], count - len(some), axis=0)))
        parts.append([part[: len(some)] for part in run(padded)])
    return [torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)]
