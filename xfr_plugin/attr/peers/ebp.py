"""Excitation backpropagation for faces (Williford, May and Byrne, ECCV 2020, arXiv 2008.00916)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr._base.caveats import LITTLE_BETTER
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr._base.smoothing import Blur, blurred
from xfr_plugin.attr.peers.relevance import RelevanceAttribution
from xfr_plugin.base.options import checked_choice
from xfr_plugin.channels.evidence import channel_similarity
from xfr_plugin.errors import InputError

__all__ = ["Ebp"]


@attribution_method(
    name="ebp",
    title="Excitation backpropagation",
    paper="Williford, May and Byrne, arXiv 2008.00916",
    year=2020,
    needs="composite",
    cost="1 forward, 1 relevance pass (2 with contrast)",
    relative_cost=24,
    caveat="its plain maps are high wherever the network is excited, for a match or not, and its contrastive "
    f"ones are small differences of two such maps; {LITTLE_BETTER}",
    batchable=True,
)
class Ebp(RelevanceAttribution):
    """Excitation backpropagation from the cosine, plain, contrastive, or truncated contrastive.

    The score is Σ_k v_k with v_k = â_k b̂_k. The channels that agree (v_k > 0) excite it: their probabilities, in
    proportion to v_k, are the *mate* prior. Excitation backpropagation (Zhang et al., ECCV 2016) hands the prior down
    to the pixels by the z⁺ rule in every layer: P_mate. The channels that disagree (v_k < 0) excite −Σ_k v_k, which
    is the score with the negated partner: the *non-mate* prior, and P_nonmate; with `non_mates` it is the mean of
    embeddings of other people instead.

    - `none`: Σ v⁺ · P_mate − Σ v⁻ · P_nonmate, where Σ v⁺ and Σ v⁻ are the sums of the agreeing and of the
      disagreeing channels' magnitudes.
    - `contrastive`: relu(P_mate/ΣP_mate − P_nonmate/ΣP_nonmate) argues for a match; with the roles exchanged it
      argues against.
    - `truncated`: as `contrastive`, on the pixels that are left when the weakest, which together hold the share
      `truncation` of the first map's mass, are dropped.

    Contrast and truncation are taken on the sum over colours, which every colour of the map then holds a part of.
    The rules are those of `xfr_plugin.lrp.ExcitationBackpropFace`, which also says what is done about negative
    activations.

    Args:
        forward_func: a `Recognizer`, or a module from images to embeddings; its layers must be known.
        threshold: see `PairAttribution`; nothing here depends on it.
        contrast: which of the three, see above.
        arguments: `combined` (for − against), `for`, or `against` (then ≤ 0 everywhere).
        non_mates: embeddings of other people, K×D, as a tensor or lists; not used by `none`.
        truncation: share of the mass that is dropped, 0…1; used by `truncated`.
        composite: `auto`, which is `excitation_backprop_face`, or a name in Zennit's `COMPOSITES`.
        blur: kernel size and σ, in pixels, of a Gaussian blur of the map; None for none.

    Raises:
        InputError: an unknown option; a function without layers; layers for which there is no rule, by name.

    Example:
        >>> probe_map, reference_map = Ebp(recognizer).attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        contrast: Literal["none", "contrastive", "truncated"] = "none",
        arguments: Literal["combined", "for", "against"] = "combined",
        non_mates: Tensor | Sequence[Sequence[float]] | None = None,
        truncation: float = 0.2,
        composite: str = "auto",
        blur: Blur | None = None,
    ) -> None:
        if not 0 <= truncation < 1:
            raise InputError(f"truncation must be at least 0 and below 1, got {truncation}")
        self.contrast = checked_choice("contrast", contrast, "none", "contrastive", "truncated")
        self.arguments = checked_choice("arguments", arguments, "combined", "for", "against")
        self.non_mate = None if non_mates is None else _mean_embedding(non_mates)
        self.truncation = truncation
        excitation = "excitation_backprop_face" if composite == "auto" else composite
        super().__init__(forward_func, threshold, excitation, blur)

    def _attribute_pair(self, pair: Pair) -> Tensor:
        with self._propagated(pair) as (units, propagate):
            similarity = channel_similarity(units, pair.partners_of(units))
            mates, non_mates = similarity.clamp(min=0), self._non_mates(similarity, units)
            if self.contrast == "none":
                return blurred(propagate(self._chosen(mates, -similarity.clamp(max=0))), self.blur)
            supporting, opposing = (_mass(propagate(prior)) for prior in (mates, non_mates))
        difference = supporting - opposing
        combined = self._chosen(
            self._kept(difference.clamp(min=0), supporting), self._kept(-difference.clamp(max=0), opposing)
        )
        return blurred(combined.expand_as(pair.images) / pair.images.shape[1], self.blur)

    def _chosen(self, supporting: Tensor, opposing: Tensor) -> Tensor:
        if self.arguments == "for":
            return supporting
        if self.arguments == "against":
            return -opposing
        return supporting - opposing

    def _non_mates(self, similarity: Tensor, units: Tensor) -> Tensor:
        """Prior of the non-mate, M×D, not normalised."""
        if self.non_mate is None:
            return -similarity.clamp(max=0)
        if self.non_mate.shape[0] != units.shape[1]:
            raise InputError(f"non_mates have {self.non_mate.shape[0]} channels, embeddings {units.shape[1]}")
        return (units * self.non_mate.to(units)).clamp(min=0)

    def _kept(self, values: Tensor, mass: Tensor) -> Tensor:
        return values * _strongest(mass, self.truncation) if self.contrast == "truncated" else values

    @contextmanager
    def _propagated(self, pair: Pair) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """Unit embeddings M×D, and the function from relevance M×D to maps M×C×H×W."""
        from xfr_plugin.lrp.private import with_rules  # Zennit is slow to import

        network, images = self._network(pair)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            with_rules(network, self._composite) as (twin, _),
        ):
            leaf = images.detach().clone().requires_grad_()
            embeddings = twin(leaf)

            def propagate(relevance: Tensor) -> Tensor:
                (maps,) = torch.autograd.grad(embeddings, leaf, relevance, retain_graph=True)
                return self._as_rgb(maps.detach())

            yield functional.normalize(embeddings.detach(), dim=1), propagate


def _mean_embedding(non_mates: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """Mean of the unit embeddings K×D; D."""
    embeddings = torch.atleast_2d(torch.as_tensor(non_mates).detach())
    if embeddings.ndim != 2 or not len(embeddings):
        raise InputError(f"non_mates must be embeddings K×D, got {tuple(embeddings.shape)}")
    mean: Tensor = functional.normalize(embeddings, dim=1).mean(dim=0)
    return mean


def _mass(maps: Tensor) -> Tensor:
    """Maps M×C×H×W, summed over colours and divided by their sum: M×1×H×W, or zeros where there is nothing."""
    grey = maps.sum(dim=1, keepdim=True).clamp(min=0)
    total = grey.sum(dim=(1, 2, 3), keepdim=True)
    return torch.where(total > 0, grey / total.clamp(min=torch.finfo(total.dtype).tiny), 0)


def _strongest(mass: Tensor, truncation: float) -> Tensor:
    """Mask of the pixels that are left without the weakest, which together hold at most `truncation` of the mass."""
    values, order = mass.flatten(1).sort(dim=1)
    kept = values.cumsum(dim=1) > truncation
    return torch.zeros_like(kept).scatter(1, order, kept).view_as(mass)
