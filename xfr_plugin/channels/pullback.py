"""Vector-Jacobian products of an embedding, many at a time, within bounded memory.

A channel map by gradient needs one backward pass for each of N channels. Here one forward pass is shared, and the
backward passes run in vectorised chunks of `chunk_size`, by `torch.vmap`. Torch's own batched gradients
(`is_grads_batched`) pass through a convolution one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from xfr_plugin.base.memory import keep_freed_memory
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.channels.convolutions import BatchedConvolutions
from xfr_plugin.errors import InputError

__all__ = ["Pullback", "one_hot_cotangents", "pass_memory", "products", "pull_back"]

Pullback: TypeAlias = Callable[[Tensor], Tensor]
"""Maps cotangents K×M×D to gradients K×M×(input shape)."""


def pull_back(
    function: Callable[[Tensor], Tensor], inputs: Tensor, chunk_size: int | None = None
) -> tuple[Tensor, Pullback]:
    """Evaluate a function once and return its value with its vector-Jacobian products.

    Works under `torch.no_grad()` and in inference mode, and leaves no trace on the inputs. Functions whose gradients
    cannot be vectorised (backward passes of the user's own that look at values) are differentiated one cotangent at a
    time.

    Args:
        function: maps M×… to M×D, example by example.
        inputs: M×….
        chunk_size: cotangents in one vectorised backward pass; memory grows with it. 1 is a plain loop.

    Returns:
        The function's value M×D, detached, and the pull-back.

    Raises:
        InputError: `chunk_size` is not positive, or the inputs are whole numbers.
    """
    if chunk_size is not None:
        checked_at_least("chunk_size", chunk_size, 1)
    if not inputs.is_floating_point():
        raise InputError(f"what is differentiated must be of floats, not {inputs.dtype}")
    keep_freed_memory()
    with torch.inference_mode(False), torch.enable_grad():  # a caller's own inference mode knows no gradients
        leaf = inputs.detach().clone().requires_grad_()
        with nullcontext() if chunk_size == 1 else BatchedConvolutions():  # which pay in batches
            value = function(leaf)
        return value.detach(), products(value, leaf, chunk_size)


def products(value: Tensor, leaf: Tensor, chunk_size: int | None = None) -> Pullback:
    """The pull-back of a value that was computed from a leaf; see `pull_back`."""
    seed = _Seed(value)
    total = _Seeded.apply(value, seed)

    def product(cotangent: Tensor) -> Tensor:
        seed.cotangent = cotangent
        settings = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        (gradient,) = torch.autograd.grad(total, leaf, None, **settings)
        return gradient.detach()

    def pullback(cotangents: Tensor) -> Tensor:
        if not value.requires_grad:
            return leaf.new_zeros(len(cotangents), *leaf.shape)
        chunks = [_products(product, chunk) for chunk in cotangents.split(chunk_size or len(cotangents))]
        return torch.cat(chunks) if len(chunks) > 1 else chunks[0]  # a copy takes a tenth of a pass

    return pullback


@dataclass
class _Seed:
    """What the next backward pass starts with."""

    cotangent: Tensor


class _Seeded(Function):
    """A number whose gradient is the seed's cotangent.

    Where it is given cotangents, `torch.autograd.grad` imports SymPy, for longer than many passes take.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, seed: _Seed) -> Tensor:
        ctx.seed = seed
        return value.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.seed.cotangent, None


def _products(product: Callable[[Tensor], Tensor], cotangents: Tensor) -> Tensor:
    """Gradients K×… for cotangents K×…, together if the function's layers allow it."""
    if len(cotangents) == 1:
        return product(cotangents[0])[None]
    try:
        with ignoring(UserWarning):  # of layers that take one after the other, as attention does on a CPU
            together: Tensor = torch.vmap(product)(cotangents)
            return together
    except (RuntimeError, NotImplementedError):  # others take no batch; a genuine error appears again below
        return torch.stack([product(row) for row in cotangents])


def one_hot_cotangents(channels: range, like: Tensor) -> Tensor:
    """Cotangents K×M×D that select each channel of an embedding M×D for all its examples."""
    rows = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)[channels.start : channels.stop]
    return rows[:, None, :].expand(-1, like.shape[0], -1)


def pass_memory(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[int, int]:
    """Bytes that a forward pass keeps of an example for the backward pass; and that a backward pass needs, about.

    Args:
        function: maps M×… to M×D, example by example.
        inputs: one example, 1×….
    """
    one, two = (_kept_bytes(function, inputs.expand(count, *inputs.shape[1:])) for count in (1, 2))
    each = [large - small for small, large in zip(one, two, strict=False)]  # weights are kept too, once
    return sum(each), _BACKWARD * (max(each, default=0) + inputs.nbytes)


_BACKWARD = 8
"""Tensors of the size of the largest layer that a backward pass holds at once, and of the input's while gradients are
weighed. PReLU takes most."""


def _kept_bytes(function: Callable[[Tensor], Tensor], inputs: Tensor) -> list[int]:
    """Bytes of everything that a forward pass keeps, in the order in which it is kept."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.enable_grad(), hooks, BatchedConvolutions():
        held = function(inputs.detach().clone().requires_grad_())
    del held  # only now may memory be used again, so that no place was counted twice
    return list(kept.values())
