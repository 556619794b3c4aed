"""Arithmetic between the passes of another runtime, on one thread.

When a parallel step of torch is done, its threads go on waiting for the next one, for milliseconds, on the cores that
the threads of onnxruntime or OpenVINO want, and a pass between two such steps takes longer (docs/intervention.md,
speed). So what is done between passes is done by NumPy, where images are on the CPU and want no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["blended", "complement", "multiplied", "patched", "standardised"]

_TYPES = (torch.float32, torch.float64)


def patched(image: Tensor, patches: Sequence[tuple[slice, slice, Tensor]]) -> Tensor:
    """Copies of C×H×W, N×C×H×W, each with one patch: rows, columns and what stands there, C×h×w."""
    plain = _is_plain(image) and all(_is_plain(put) for _, _, put in patches)
    copies: Any = (
        _array(image)[None].repeat(len(patches), 0) if plain else image.repeat(len(patches), 1, 1, 1)
    )
    for copy, (rows, columns, put) in zip(copies, patches, strict=True):
        copy[:, rows, columns] = _array(put) if plain else put
    return torch.from_numpy(copies) if plain else copies


def blended(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """What `torch.lerp` gives of tensors that broadcast."""
    if not (_is_plain(first) and _is_plain(second) and _is_plain(share)):
        return torch.lerp(first, second, share)
    start = _array(first)
    mixed = _array(second) - start
    mixed = mixed * _array(share)
    return torch.from_numpy(np.add(mixed, start, out=mixed))


def complement(share: Tensor) -> Tensor:
    """1 − share."""
    return torch.from_numpy(1 - _array(share)) if _is_plain(share) else 1 - share


def multiplied(first: Tensor, second: Tensor) -> Tensor:
    """first · second."""
    if not (_is_plain(first) and _is_plain(second)):
        return first * second
    return torch.from_numpy(_array(first) * _array(second))


def standardised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images − mean) / std."""
    if not (_is_plain(images) and _is_plain(mean) and _is_plain(std)):
        return (images - mean) / std
    centred = _array(images) - _array(mean)
    return torch.from_numpy(np.divide(centred, _array(std), out=centred))


def _is_plain(values: Tensor) -> bool:
    wants_gradient = torch.is_grad_enabled() and values.requires_grad
    return values.device.type == "cpu" and values.dtype in _TYPES and not wants_gradient


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().numpy()
    return array
