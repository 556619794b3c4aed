"""The propagation of relevance, recorded once and applied many times.

For a given input, every common rule of layer-wise relevance propagation is linear in the relevance that it receives:
the maps of all channels of an embedding are one matrix L, applied to one-hot vectors. Zennit applies L by a
backward pass whose hooks run each layer anew. Here that pass is recorded once, as a graph in the relevance.
Differentiating the recorded pass applies the transpose of L, and differentiating that applies L again, both without
the hooks. So a map of one channel costs one plain pass, and, where only the totals of P regions are wanted, P
transposed passes give them for all channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from xfr_plugin.channels.convolutions import batched_convolutions
from xfr_plugin.channels.pullback import one_hot_cotangents, products
from xfr_plugin.errors import InputError

__all__ = [
    "LinearPropagation",
    "LoopedPropagation",
    "Propagation",
    "channel_relevance",
    "check_embeddings",
    "differentiable",
    "propagate",
    "region_relevance",
]

_TOLERANCE = 1e-3
"""Relative; float32 rounding stays two orders below, a rule that is not linear does not."""


class Propagation(Protocol):
    """Relevance propagated through a network for a fixed batch of inputs.

    Attributes:
        output: the network's output M×D, detached.
    """

    output: Tensor

    def maps(self, relevance: Tensor) -> Tensor:
        """Relevance of the inputs, K×M×(input shape), for relevance K×M×D of the outputs."""
        ...


class LinearPropagation:
    """A propagation recorded as a linear map, with its transpose; see the module."""

    def __init__(self, output: Tensor, leaf: Tensor, inactive: AbstractContextManager[Any]) -> None:
        self.output = output.detach()
        relevance = _random(self.output, seed=1).requires_grad_()
        (propagated,) = torch.autograd.grad(output, leaf, relevance, create_graph=True)
        weights = torch.zeros_like(propagated, requires_grad=True)
        with inactive:
            (weighed,) = torch.autograd.grad(propagated, relevance, weights, create_graph=True)
        self.input_shape = propagated.shape
        self._maps, self._transposed = products(weighed, weights), products(propagated, relevance)

    def maps(self, relevance: Tensor) -> Tensor:
        """Relevance of the inputs, K×M×(input shape), for relevance K×M×D of the outputs."""
        return self._maps(relevance)

    def transposed(self, weights: Tensor) -> Tensor:
        """Weighted totals of the inputs' relevance, K×M×D, per unit of relevance of each output.

        Args:
            weights: K×M×(input shape).
        """
        return self._transposed(weights)


class LoopedPropagation:
    """A propagation by Zennit's own backward pass, for rules that cannot be recorded as a linear map."""

    def __init__(self, output: Tensor, leaf: Tensor) -> None:
        self.output = output.detach()
        self._graph, self._leaf = output, leaf

    def maps(self, relevance: Tensor) -> Tensor:
        """Relevance of the inputs, K×M×(input shape), for relevance K×M×D of the outputs."""
        maps = [
            torch.autograd.grad(self._graph, self._leaf, row, retain_graph=True)[0].detach()
            for row in relevance
        ]
        return torch.stack(maps)


@contextmanager
def differentiable() -> Iterator[None]:
    """Allow gradients, whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def propagate(model: nn.Module, inputs: Tensor, composite: Any | None = None) -> Propagation:
    """Run a network that a composite is registered with, and return the propagation of its relevance.

    Use it inside `differentiable()`, and only while the composite stays registered. The propagation holds the
    network's activations; memory is freed with it.

    Args:
        model: maps M×… to M×D, example by example.
        inputs: M×….
        composite: the registered composite, or None for the plain gradient.

    Raises:
        InputError: the output is not M×D.
    """
    leaf = inputs.detach().clone().requires_grad_()
    with batched_convolutions(model):
        output = model(leaf)
        check_embeddings(output, len(leaf))
        plain = LoopedPropagation(output, leaf)
        try:
            recorded = LinearPropagation(output, leaf, composite.inactive() if composite else nullcontext())
            return recorded if _agree(recorded, plain) else plain
        except (RuntimeError, NotImplementedError):  # a rule or layer without a second derivative
            return plain


def check_embeddings(output: Any, count: int) -> None:
    """Check that a network returned one embedding for each of `count` inputs.

    Raises:
        InputError: the output is not a tensor `count`×D.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != count:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the network must return embeddings {count}×D, got {found}")


def channel_relevance(
    propagation: Propagation, relevance: Tensor, chunk_size: int, channels: range | None = None
) -> Iterator[tuple[range, Tensor]]:
    """Relevance maps of single channels, a chunk of channels at a time.

    Args:
        propagation: of M inputs.
        relevance: M×D; channel k starts with its column k and all other channels with none.
        chunk_size: channels in a chunk; memory grows with it.
        channels: which, all if left out.

    Yields:
        The channels of the chunk, and their maps K×M×(input shape).
    """
    chosen = range(relevance.shape[1]) if channels is None else channels
    for start in range(chosen.start, chosen.stop, chunk_size):
        chunk = range(start, min(start + chunk_size, chosen.stop))
        yield chunk, propagation.maps(one_hot_cotangents(chunk, relevance) * relevance)


def region_relevance(propagation: Propagation, masks: Tensor, relevance: Tensor, chunk_size: int) -> Tensor:
    """Total relevance of every channel in every region, M×P×D, by the cheaper of the two ways.

    Args:
        propagation: of M images M×C×H×W.
        masks: weights of the pixels in each region, P×H×W.
        relevance: M×D, see `channel_relevance`.
        chunk_size: regions or channels at once.
    """
    if isinstance(propagation, LinearPropagation) and len(masks) <= relevance.shape[1]:
        totals = [_transposed(propagation, chunk) for chunk in masks.split(chunk_size)]
        return torch.cat(totals).transpose(0, 1) * relevance[:, None]
    columns = [
        torch.einsum("kmchw,phw->mpk", maps, masks)
        for _, maps in channel_relevance(propagation, relevance, chunk_size)
    ]
    return torch.cat(columns, dim=2)


def _transposed(propagation: LinearPropagation, masks: Tensor) -> Tensor:
    return propagation.transposed(masks[:, None, None].expand(-1, *propagation.input_shape))


def _agree(recorded: LinearPropagation, plain: LoopedPropagation) -> bool:
    """Whether the recorded map does to a random relevance what Zennit's pass does."""
    probe = _random(recorded.output, seed=0)[None]
    expected, found = plain.maps(probe), recorded.maps(probe)
    scale = float(expected.abs().max())
    return bool((found - expected).abs().max() <= _TOLERANCE * scale)


def _random(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
