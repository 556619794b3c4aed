"""Modules that stand for what a forward function computes without a module, so that a rule can be attached to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional
from zennit.layer import Sum

__all__ = ["Branches", "Cosine", "Elementwise", "Gated", "L2Normalize", "Pooled", "Shifted"]


class Elementwise(nn.Module):
    """A function of each value of one tensor: an activation, a multiplication by a constant, a preprocessing.

    Args:
        function: maps a tensor to one of the same shape.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)


class Pooled(Elementwise):
    """An average over positions that was written as a function, e.g. `x.mean((2, 3))`."""


class Branches(Sum):  # type: ignore[misc]  # Zennit is untyped
    """A sum of stacked branches; taken one by one, two take a quarter of the time."""

    def forward(self, branches: Tensor) -> Tensor:
        """Add them."""
        return reduce(torch.add, branches.unbind(self.dim))


class Gated(nn.Module):
    """A signal times its gate (squeeze-and-excitation, attention): the gate counts as a constant.

    All relevance goes to the signal ("signal takes it all", Arras et al., WASSA 2017, arXiv 1706.07206).
    """

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Multiply `x` by `gate`, of a shape that broadcasts to that of `x`."""
        return x * gate.detach()


class Shifted(nn.Module):
    """A signal plus a constant, which gets no relevance."""

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        """Add `shift`, of a shape that broadcasts to that of `x`."""
        return x + shift


class L2Normalize(nn.Module):
    """Embedding to unit length. For relevance the length counts as a constant, so R of e_k is R of ê_k.

    The same treatment keeps relevance in layer normalisation (Ali et al., ICML 2022, arXiv 2202.07304).

    Args:
        dim: dimension along which vectors are normalised.
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`."""
        return functional.normalize(x, dim=self.dim)


class Cosine(nn.Module):
    """Embedding to its similarity with a partner, channel by channel: v_k = ê_k · p̂_k, N×D.

    The score is Σ_k v_k. Relevance starts here with R_k = v_k and reaches the embedding unchanged: the partner is
    fixed, and the length of the embedding counts as a constant.

    Args:
        partner: embeddings N×D (or D, for all), normalised or not.
    """

    partner: Tensor

    def __init__(self, partner: Tensor) -> None:
        super().__init__()
        unit = functional.normalize(torch.atleast_2d(partner.detach()), dim=1)
        self.register_buffer("partner", unit, persistent=False)

    def forward(self, embedding: Tensor) -> Tensor:
        """Similarity of `embedding`, N×D, with the partner."""
        return functional.normalize(embedding, dim=1) * self.partner
