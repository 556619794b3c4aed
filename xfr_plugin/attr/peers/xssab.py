"""xSSAB: similarity score argument backpropagation (Huber et al., WACV-W 2024, arXiv 2304.13409)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from xfr_plugin.attr._base.caveats import LITTLE_BETTER
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr._base.smoothing import Blur, blurred, checked_blur
from xfr_plugin.base.options import checked_choice
from xfr_plugin.channels.evidence import channel_evidence
from xfr_plugin.channels.pullback import pull_back

__all__ = ["Xssab"]


@attribution_method(
    name="xssab",
    title="Similarity score argument backpropagation",
    paper="Huber, Luu, Terhörst and Damer, arXiv 2304.13409",
    year=2024,
    needs="gradient",
    cost="1 forward, 2 backward",
    relative_cost=5,
    caveat=LITTLE_BETTER,
    batchable=True,
    preferred=3,
    compared=True,
)
class Xssab(PairAttribution):
    """Gradients of the arguments for and against: two backward passes for each face.

    Channels with v_k ≥ τ/N argue for a match, the rest against. Each set's part of the score, Σ_k â_k b̂_k, is
    backpropagated through the normalisation of â, with b̂ fixed; its map is the absolute gradient, averaged over
    colours. The combined map is for − against. Every colour of the returned map holds a third of it (one part in
    C), so that the sum over colours is the published map.

    Args:
        forward_func, threshold: see `PairAttribution`.
        arguments: `combined` (for − against), `for`, or `against` (then ≤ 0 everywhere).
        blur: kernel size and σ, in pixels, of a Gaussian blur of the map; None for none.

    Raises:
        InputError: an unknown option.

    Example:
        >>> against = Xssab(recognizer, arguments="against")
        >>> probe_map, reference_map = against.attribute((probe, reference))
        >>> bool((probe_map <= 0).all())
        True
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        arguments: Literal["combined", "for", "against"] = "combined",
        blur: Blur | None = None,
    ) -> None:
        super().__init__(forward_func, threshold)
        self.arguments = checked_choice("arguments", arguments, "combined", "for", "against")
        self.blur = checked_blur(blur)

    def _attribute_pair(self, pair: Pair) -> Tensor:
        units, pullback = pull_back(
            self._embed(pair), pair.images, chunk_size=1
        )  # of two, vectorising saves nothing
        partners = pair.partners_of(units)
        supports = channel_evidence(units, partners, self.threshold) >= 0
        sets = torch.stack((partners * supports, partners * ~supports))
        magnitudes = pullback(sets).abs().mean(dim=2, keepdim=True)
        combined = self._combine(magnitudes[0], magnitudes[1])
        channels = pair.images.shape[1]
        return blurred(combined.expand_as(pair.images) / channels, self.blur)

    def _combine(self, supporting: Tensor, opposing: Tensor) -> Tensor:
        if self.arguments == "for":
            return supporting
        if self.arguments == "against":
            return -opposing
        return supporting - opposing
