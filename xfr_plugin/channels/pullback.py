"""Vector-Jacobian products of an embedding, many at a time, within bounded memory.

A channel map by gradient needs one backward pass for each of N channels. Here one forward pass is shared, and the
backward passes run in vectorised chunks of `chunk_size` (`torch.func.vmap` over `torch.func.vjp`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from xfr_plugin.errors import InputError

__all__ = ["Pullback", "channel_gradients", "one_hot_cotangents", "pull_back"]

Pullback: TypeAlias = Callable[[Tensor], Tensor]
"""Maps cotangents K×M×D to gradients K×M×(input shape)."""


def pull_back(
    function: Callable[[Tensor], Tensor], inputs: Tensor, chunk_size: int | None = None
) -> tuple[Tensor, Pullback]:
    """Evaluate a function once and return its value with its vector-Jacobian products.

    Works under `torch.no_grad()` and leaves no trace on the inputs. Functions that `torch.func` cannot transform
    (scripted modules, data-dependent control flow) are differentiated one cotangent at a time.

    Args:
        function: maps M×… to M×D, example by example.
        inputs: M×….
        chunk_size: cotangents in one vectorised backward pass; memory grows with it. 1 is a plain loop.

    Returns:
        The function's value M×D, detached, and the pull-back.

    Raises:
        InputError: `chunk_size` is not positive.
    """
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
    detached = inputs.detach()
    with torch.enable_grad():
        if chunk_size == 1:
            return _looped(function, detached)
        try:
            return _vectorised(function, detached, chunk_size)
        except (RuntimeError, NotImplementedError):
            # a genuine error of the function appears again here, with its own message
            return _looped(function, detached)


def one_hot_cotangents(channels: range, like: Tensor) -> Tensor:
    """Cotangents K×M×D that select each channel of an embedding M×D for all its examples."""
    rows = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)[channels.start : channels.stop]
    return rows[:, None, :].expand(-1, like.shape[0], -1)


def channel_gradients(
    embedding: Tensor, pullback: Pullback, chunk_size: int
) -> Iterator[tuple[range, Tensor]]:
    """Gradient of every channel of an embedding with respect to the input, a chunk of channels at a time.

    Args:
        embedding: M×D, as `pull_back` returns it.
        pullback: the same call's pull-back.
        chunk_size: channels in a chunk.

    Yields:
        The channels of the chunk, and their gradients K×M×(input shape).
    """
    for start in range(0, embedding.shape[1], chunk_size):
        channels = range(start, min(start + chunk_size, embedding.shape[1]))
        yield channels, pullback(one_hot_cotangents(channels, embedding))


def _vectorised(
    function: Callable[[Tensor], Tensor], inputs: Tensor, chunk_size: int | None
) -> tuple[Tensor, Pullback]:
    value: Tensor
    value, vjp = torch.func.vjp(function, inputs)  # type: ignore[misc]  # three values only with has_aux
    batched = torch.func.vmap(lambda cotangent: vjp(cotangent)[0], chunk_size=chunk_size)

    def pullback(cotangents: Tensor) -> Tensor:
        with torch.enable_grad():
            try:
                gradients: Tensor = batched(cotangents)
            except (RuntimeError, NotImplementedError):  # a backward of the user's own that looks at values
                gradients = torch.stack([vjp(cotangent)[0] for cotangent in cotangents])
        return gradients.detach()

    return value.detach(), pullback


def _looped(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Pullback]:
    leaf = inputs.clone().requires_grad_()
    value = function(leaf)

    def pullback(cotangents: Tensor) -> Tensor:
        grads = [
            torch.autograd.grad(value, leaf, cotangent, retain_graph=True)[0] for cotangent in cotangents
        ]
        return torch.stack(grads)

    return value.detach(), pullback
