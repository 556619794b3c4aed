"""The base of pair methods that explain the cosine of one face, its partner's embedding being fixed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr._base.baselines import Baseline, baseline_images
from xfr_plugin.attr._base.complete import CompletePairAttribution
from xfr_plugin.attr._base.pair import Pair, PairAttribution, _like_inputs, readied
from xfr_plugin.attr._base.prepared import Explained, Prepared
from xfr_plugin.attr.cosine_head import CosineHead
from xfr_plugin.base.replicas import in_evaluation
from xfr_plugin.base.rows import with_rows
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.folding import for_scores, safely_folded

__all__ = ["BaselineAttribution", "CosineAttribution", "PartnerHead", "ScoreAttribution", "checked_count"]


class CosineAttribution(PairAttribution):
    """Attribution of the cosine to each face, against the other's embedding.

    Subclasses explain a batch of images with a `CosineHead`, whose further arguments begin with the partners'
    embeddings. Images come in batches of at most `_batch_size()`, whatever the number of pairs.
    """

    def explain_prepared(self, probes: Prepared, references: Prepared, *, errors: bool = False) -> Explained:
        """See `PairAttribution.explain_prepared`; faces whose embeddings are known are not embedded again."""
        images, units = (probes.images, references.images), (references.units, probes.units)
        if images[0] is None or images[1] is None or units[0] is None or units[1] is None:
            return super().explain_prepared(probes, references, errors=errors)
        with torch.inference_mode(False):
            pair = Pair(torch.cat((images[0], images[1])), torch.cat((units[0], units[1])), ())
            maps = self._attribute_pair(readied(self.forward_func, pair))
            first, second = _like_inputs(maps, (images[0], images[1]))
            return Explained(first, second)

    def _attribute_pair(self, pair: Pair) -> Tensor:
        partners = self._partners(pair)
        head = PartnerHead.around(self._function(pair))
        maps = [self._maps(head, *batch) for batch in _batches(pair, partners, self._batch_size())]
        return torch.cat(maps).to(pair.images)

    def _function(self, pair: Pair) -> Callable[..., Tensor]:
        """What the head embeds with: the forward function, or what computes the same in less time."""
        return safely_folded(self.forward_func, pair.images, pair.forward_args)

    @torch.no_grad()
    def _partners(self, pair: Pair) -> Tensor:
        """Unit embeddings M×D of the partners."""
        known = pair.partners
        if known is not None and len(known) == len(pair.images) > 1:
            return functional.normalize(known, dim=1).to(pair.images)
        return pair.partners_of(self._embed(pair)(pair.images))

    def _batch_size(self) -> int:
        """Images explained at once."""
        return 1

    @abstractmethod
    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        """Signed maps M×C×H×W of images M×C×H×W; the arguments of the head begin with M partners' embeddings."""


class ScoreAttribution(CosineAttribution):
    """Attribution by scores alone: no gradient is asked for, and so whatever is fastest gives them."""

    def _function(self, pair: Pair) -> Callable[..., Tensor]:
        first = with_rows(pair.forward_args, len(pair.images), lambda rows: rows[:1])
        return for_scores(self.forward_func, pair.images[:1].detach(), first)


class BaselineAttribution(CosineAttribution, CompletePairAttribution):
    """Attribution of the cosine less that of a baseline, to which maps should sum (convergence delta)."""

    baseline: Baseline

    def _attribute_pair(self, pair: Pair) -> Tensor:
        return CosineAttribution._attribute_pair(self, pair)

    @torch.no_grad()
    def _maps_and_evidence(self, pair: Pair) -> tuple[Tensor, Tensor]:
        embed = self._embed(pair)
        units, without = embed(pair.images), embed(baseline_images(pair.images, self.baseline))
        evidence = ((units - without) * pair.partners_of(units)).sum(dim=1)
        return self._attribute_pair(pair), evidence


@dataclass(frozen=True)
class _Whole:
    """An argument that has no row for each image. Captum would repeat a bare tensor's rows."""

    value: Any


class PartnerHead(CosineHead):
    """A head whose reference is an embedding, and which reads `_Whole` arguments."""

    @classmethod
    def around(cls, function: Callable[..., Tensor]) -> PartnerHead:
        """A head in evaluation mode."""
        return in_evaluation(cls(function, reference_kind="embedding"))

    def forward(self, probe: Tensor, *arguments: Any) -> Tensor:
        values = (value.value if isinstance(value, _Whole) else value for value in arguments)
        return super().forward(probe, *values)


def _batches(pair: Pair, partners: Tensor, size: int) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
    """Images and the head's arguments, `size` images at a time."""
    count = len(pair.images)
    for start in range(0, count, size):
        rows = slice(start, start + size)
        further = (_rows_of(value, rows, count) for value in pair.forward_args)
        # a leaf of our own: Captum sets requires_grad on its inputs
        yield pair.images[rows].detach().clone().requires_grad_(), (partners[rows], *further)


def _rows_of(value: Any, rows: slice, count: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value[rows] if value.ndim > 0 and len(value) == count else _Whole(value)


def checked_count(name: str, value: int) -> int:
    """Return a count if it is positive.

    Raises:
        InputError: it is not.
    """
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
    return int(value)
