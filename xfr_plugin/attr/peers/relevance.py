"""Layer-wise relevance propagation for pairs of faces, through Zennit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from xfr_plugin.attr._base.caveats import LITTLE_BETTER, TOO_FEW
from xfr_plugin.attr._base.complete import CompletePairAttribution
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr._base.smoothing import Blur, blurred, checked_blur
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.channels.evidence import EvidenceLevel, channel_evidence, weigh_channel_maps
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.recognizer import Recognizer

if TYPE_CHECKING:
    from xfr_plugin.lrp.propagation import Propagation

__all__ = ["ChannelRelevanceSaliency", "LrpSaliency", "RelevanceAttribution"]


class RelevanceAttribution(PairAttribution):
    """Base of the pair attributions by relevance.

    Relevance is propagated to the input of the network, past a recognizer's preprocessing. The composite's hooks and
    canonizers go to a replica of the network.

    Args:
        forward_func: a `Recognizer` or another module; rules are given to its submodules.
        threshold: see `PairAttribution`.
        composite: see `lrp.choice.composite_for`.

    Raises:
        InputError: a function that is no module; an unknown composite.
    """

    def __init__(
        self, forward_func: Callable[..., Tensor], threshold: float | None, composite: str, blur: Blur | None
    ) -> None:
        super().__init__(forward_func, threshold)
        if not isinstance(forward_func, nn.Module):
            raise InputError(
                "relevance is propagated from module to module: pass a Recognizer or an nn.Module, not a "
                f"{type(forward_func).__name__}"
            )
        from xfr_plugin.lrp.choice import kept_composite  # Zennit is slow to import

        self.composite = composite
        self.blur = checked_blur(blur)
        self._module: nn.Module = self.forward_func
        self._composite = kept_composite(self._module, composite)

    def _network(self, pair: Pair) -> tuple[nn.Module, Tensor]:
        """The network, and its input for the pair's images."""
        if isinstance(self._module, Recognizer):
            return self._module.network, self._module.preprocess(pair.images)
        module = self._module.module if isinstance(self._module, nn.DataParallel) else self._module
        return (_WithArguments(module, pair.forward_args) if pair.forward_args else module), pair.images

    def _as_rgb(self, maps: Tensor) -> Tensor:
        """Maps M×C×H×W of the network's input, with the colours in the images' order."""
        is_bgr = isinstance(self._module, Recognizer) and self._module.channel_order == "BGR"
        return maps.flip(1) if is_bgr else maps


@attribution_method(
    name="lrp",
    title="Layer-wise relevance of the cosine score",
    paper="Bach et al., PLOS ONE 2015; Zennit, arXiv 2106.13200",
    year=2015,
    needs="composite",
    cost="1 forward, 1 relevance pass",
    relative_cost=28,
    caveat=LITTLE_BETTER,
    batchable=True,
    compared=True,
)
class LrpSaliency(RelevanceAttribution):
    """Relevance of the cosine score for both faces: LRP (Bach et al., PLOS ONE 2015) from the similarity by channel.

    Channel k of a face starts with v_k = â_k · b̂_k. By conservation a map would sum to the score; what rules lose and
    biases absorb is missing from it, so there is no convergence delta. The threshold does not enter.

    Args:
        forward_func: see `RelevanceAttribution`.
        threshold: see `PairAttribution`.
        composite: `auto`, or the name of a composite, see `lrp.choice.composite_for`.
        blur: kernel size and σ, in pixels, of a Gaussian blur of the map; None for none.

    Raises:
        InputError: an unknown option.

    Example:
        >>> lrp = LrpSaliency(recognizer, composite="epsilon_plus_flat_face")
        >>> probe_map, reference_map = lrp.attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        composite: str = "auto",
        blur: Blur | None = None,
    ) -> None:
        super().__init__(forward_func, threshold, composite, blur)

    def _attribute_pair(self, pair: Pair) -> Tensor:
        from xfr_plugin.lrp.attributors import CosineRelevance, unit_embeddings

        def similarity(output: Tensor) -> Tensor:
            units = unit_embeddings(output)
            return units * pair.partners_of(units)

        network, images = self._network(pair)
        _, maps = CosineRelevance(network, self._composite, similarity)(images)
        return blurred(self._as_rgb(maps), self.blur)


@attribution_method(
    name="channel_relevance",
    title="Saliency from channel maps by relevance",
    paper="after Xu, Lu and Ebrahimi, arXiv 2306.00402",
    year=2023,
    needs="composite",
    cost="1 forward, D relevance passes",
    relative_cost=365,
    caveat=TOO_FEW,
)
class ChannelRelevanceSaliency(RelevanceAttribution, CompletePairAttribution):
    """Channel maps by relevance, weighed by channel evidence: S = Σ_k c_k · M_k (after Xu et al., arXiv 2306.00402).

    M_k is the relevance of channel k of the unit embedding, summed over colours and normalised. It says where the
    channel's value comes from, whatever the rules lose on the way. With maps that are not negative and sum to 1 (the
    default) a face's map sums to its evidence: to the margin s − τ at `threshold` level. Every colour of the returned
    map holds an equal part.

    Args:
        forward_func: see `RelevanceAttribution`.
        threshold: see `PairAttribution`.
        composite: `auto`, or the name of a composite, see `lrp.choice.composite_for`.
        part: of a channel's relevance: its `absolute` value; what is `positive` for the channel's value, that is, of
            its sign; or all of it, `signed` as it supports (positive) or opposes the channel's value.
        normalization: `l1`: every M_k has an absolute sum of 1; `l2`: a Frobenius norm of 1.
        level: what the evidence of a channel is measured against, see `evidence.EvidenceLevel`.
        blur: kernel size and σ, in pixels, of a Gaussian blur of the map; None for none.
        chunk_size: maps computed at once, channels × faces; memory grows with it.

    Raises:
        InputError: an unknown option.

    Example:
        >>> relevance = ChannelRelevanceSaliency(recognizer)
        >>> maps, delta = relevance.attribute((probe, reference), return_convergence_delta=True)
        >>> bool(delta.abs() < 1e-4)  # each map sums to s − τ
        True
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        composite: str = "auto",
        part: Literal["absolute", "positive", "signed"] = "absolute",
        normalization: Literal["l1", "l2"] = "l1",
        level: EvidenceLevel = "threshold",
        blur: Blur | None = None,
        chunk_size: int = 16,
    ) -> None:
        super().__init__(forward_func, threshold, composite, blur)
        self.part = checked_choice("part", part, "absolute", "positive", "signed")
        self.normalization = checked_choice("normalization", normalization, "l1", "l2")
        self.level: EvidenceLevel = checked_choice("level", level, "threshold", "score")
        self.chunk_size = checked_at_least("chunk_size", chunk_size, 1)

    def has_convergence_delta(self) -> bool:
        """Whether the maps should sum to the evidence: with `l1`, and maps that are not signed."""
        return self.normalization == "l1" and self.part != "signed"

    def _maps_and_evidence(self, pair: Pair) -> tuple[Tensor, Tensor]:
        from xfr_plugin.lrp.channel_relevance import ChannelRelevance

        network, images = self._network(pair)
        with ChannelRelevance(network, self._composite).propagation(images) as propagation:
            grey, evidence = self._weighed(propagation, pair)
        channels = pair.images.shape[1]
        return blurred(grey.expand_as(pair.images) / channels, self.blur), evidence

    def _weighed(self, propagation: Propagation, pair: Pair) -> tuple[Tensor, Tensor]:
        """Σ_k c_k · M_k, M×1×H×W, and Σ_k c_k, M."""
        from xfr_plugin.lrp.attributors import unit_embeddings
        from xfr_plugin.lrp.propagation import channel_relevance

        units = unit_embeddings(propagation.output)
        evidence = channel_evidence(units, pair.partners_of(units), self.threshold, self.level)
        weighed = torch.zeros_like(pair.images[:, :1])
        for channels, maps in channel_relevance(
            propagation, units, max(1, self.chunk_size // len(pair.images))
        ):
            chunk = slice(channels.start, channels.stop)
            grey = maps.sum(dim=2, keepdim=True) * units[:, chunk].T.sign()[:, :, None, None, None]
            weighed += weigh_channel_maps(evidence[:, chunk], self._normalised(grey))
        return weighed, evidence.sum(dim=1)

    def _normalised(self, relevance: Tensor) -> Tensor:
        """Maps M_k, K×M×1×H×W, from relevance whose positive part is for the channel's value."""
        if self.part == "absolute":
            relevance = relevance.abs()
        elif self.part == "positive":
            relevance = relevance.clamp_min(0)
        order = 1 if self.normalization == "l1" else 2
        norms = torch.linalg.vector_norm(relevance, order, dim=(2, 3, 4), keepdim=True)
        tiny = torch.finfo(norms.dtype).tiny  # a channel without relevance has an empty map
        normalised: Tensor = relevance / norms.clamp_min(tiny)
        return normalised


class _WithArguments(nn.Module):
    """A module with its further arguments bound."""

    def __init__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.module = module
        self.arguments = arguments
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.module(images, *self.arguments)
        return output
