"""Zennit attributors for embeddings, and the relevance of a verification score.

They follow Zennit's `Attributor`: constructor `(model, composite, attr_output)`, a context manager that registers the
composite, and a call that returns `(output, attribution)`. A pair is one batch of 2N images, N probes followed by
their N references; the model maps images to embeddings, normalised or not. Give them the network itself and
preprocessed images: what happens in a `forward` outside modules, such as a recognizer's preprocessing, treats
relevance as a gradient, and so scales it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.channels.evidence import channel_similarity
from xfr_plugin.errors import InputError
from xfr_plugin.lrp.private import AttrOutput, PrivateAttributor
from xfr_plugin.lrp.propagation import Propagation, check_embeddings, differentiable, propagate

__all__ = [
    "AttrOutput",
    "CosineRelevance",
    "EmbeddingAttributor",
    "pair_similarity",
    "similarity_to",
    "unit_embeddings",
]


class EmbeddingAttributor(PrivateAttributor):
    """Base of our attributors, see also `PrivateAttributor`.

    Args:
        model: maps images M×C×H×W to embeddings M×D, example by example.
        composite: Zennit composite, of whose rules a copy is used; None for the plain gradient.
        attr_output: relevance of the output; the class says what it is, if left out.
    """

    def __init__(
        self, model: nn.Module, composite: Any | None = None, attr_output: AttrOutput | None = None
    ) -> None:
        given = self.default_attr_output if attr_output is None else attr_output
        super().__init__(model=model, composite=composite, attr_output=given)

    @staticmethod
    def default_attr_output(output: Tensor) -> Tensor:
        """Relevance of the output where none is given."""
        return output

    @contextmanager
    def propagation(self, input: Tensor) -> Iterator[Propagation]:
        """Give the propagation of relevance for these images.

        Raises:
            InputError: the model does not return embeddings.
        """
        with self._with_rules() as own, differentiable():
            yield propagate(own.model, input, own.composite)


class CosineRelevance(EmbeddingAttributor):
    """Relevance of the cosine score, for both faces of each pair.

    Channel k of a face starts with its similarity v_k = â_k · b̂_k, the share of the score that it carries. This is
    LRP of the score as a linear function of the face's embedding, with its length and the partner fixed. By
    conservation a map sums to the score, less what the rules lose and biases absorb.

    A call takes 2N images and returns embeddings 2N×D and maps of the images' shape. With
    `attr_output=similarity_to(reference)` it takes probes alone.
    """

    @staticmethod
    def default_attr_output(output: Tensor) -> Tensor:
        """Similarity of each channel with the partner's, see `pair_similarity`."""
        return pair_similarity(output)

    def forward(self, input: Tensor, attr_output_fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Propagate the relevance of the score; called by `__call__`, with the composite registered."""
        with differentiable():
            leaf = input.detach().clone().requires_grad_()
            output = self.model(leaf)
            check_embeddings(output, len(leaf))
            relevance = attr_output_fn(output.detach())
            (attribution,) = torch.autograd.grad(output, leaf, relevance)
        return output.detach(), attribution


def unit_embeddings(output: Tensor) -> Tensor:
    """L2-normalised embeddings M×D: channel k starts with its unit value ê_k."""
    return functional.normalize(output, dim=1)


def pair_similarity(output: Tensor) -> Tensor:
    """Similarity by channel, 2N×D, of embeddings 2N×D: N probes, then their N references.

    Raises:
        InputError: the number of embeddings is odd.
    """
    if len(output) % 2:
        raise InputError(
            f"a batch of pairs holds N probes and then N references, got {len(output)} images; "
            "for probes alone pass attr_output=similarity_to(reference)"
        )
    units = unit_embeddings(output)
    return channel_similarity(units, units.roll(len(units) // 2, dims=0))


def similarity_to(reference: Tensor) -> Callable[[Tensor], Tensor]:
    """Make an `attr_output` for probes alone: similarity by channel with fixed references N×D (or D)."""
    partner = unit_embeddings(torch.atleast_2d(reference.detach()))

    def attr_output(output: Tensor) -> Tensor:
        return channel_similarity(unit_embeddings(output), partner.to(output).expand_as(output))

    return attr_output
