"""FGGB: feature-guided gradient backpropagation (Lu, Xu and Ebrahimi, 2024, arXiv 2403.04549)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr._base.caveats import TOO_FEW
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr._base.smoothing import Blur, blurred, checked_blur
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.base.rows import with_rows
from xfr_plugin.channels.evidence import EvidenceLevel, channel_evidence, weigh_channel_maps
from xfr_plugin.channels.pullback import one_hot_cotangents, pass_memory, pull_back
from xfr_plugin.errors import InputError

__all__ = ["Fggb"]


@attribution_method(
    name="fggb",
    title="Feature-guided gradient backpropagation",
    paper="Lu, Xu and Ebrahimi, arXiv 2403.04549",
    year=2024,
    needs="gradient",
    cost="1 forward, D backward",
    relative_cost=160,
    caveat=TOO_FEW,
    batchable=True,
    compared=True,
    trial_options={"chunk_size": 64},
)
class Fggb(PairAttribution):
    """Channel maps by gradient, weighed by channel evidence: S = Σ_k (v_k − τ/N) · G_k / ‖G_k‖.

    G_k = ∂e_k/∂I is the gradient of channel k of the embedding with respect to the face; the norm is Frobenius'.
    The sum of the map is not the margin, since the norm is not a sum (no convergence delta). With `absolute`
    gradients every colour of the returned map holds an equal part (one in C), so that the sum over colours is
    the published map.

    Args:
        forward_func, threshold: see `PairAttribution`.
        embedding: gradient of the `raw` embedding, as published, or of the `normalized` one. A function
            other than a `Recognizer` is taken as it is for `raw`.
        gradient: `absolute`, |G_k| averaged over colours, or `signed`. The sign of a gradient says whether a
            brighter pixel raises the channel, not whether the pixel speaks for a match: signed maps are noise
            around zero when summed over a region.
        level: what the evidence of a channel is measured against, see `evidence.EvidenceLevel`.
        blur: kernel size and σ, in pixels, of a Gaussian blur of the map, e.g. (25, 5); None for none.
        chunk_size: gradients computed at once, channels × faces. Peak memory grows with it.
        memory: MiB that activations and gradients may take, about: fewer gradients are then computed at once, and
            faces one after the other if they must. Weights, and those with BatchNorm folded in, count extra.

    Raises:
        InputError: an unknown option, or less memory than a gradient takes.

    Example:
        >>> fggb = Fggb(recognizer, level="score")
        >>> probe_map, reference_map = fggb.attribute((probe, reference))
        >>> probe_map.sum(dim=1).shape  # the map of the pixels
        torch.Size([1, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        embedding: Literal["raw", "normalized"] = "raw",
        gradient: Literal["signed", "absolute"] = "absolute",
        level: EvidenceLevel = "threshold",
        blur: Blur | None = None,
        chunk_size: int = 16,
        memory: float | None = None,
    ) -> None:
        super().__init__(forward_func, threshold)
        self.embedding = checked_choice("embedding", embedding, "raw", "normalized")
        self.gradient = checked_choice("gradient", gradient, "signed", "absolute")
        self.level: EvidenceLevel = checked_choice("level", level, "threshold", "score")
        self.blur = checked_blur(blur)
        self.chunk_size = checked_at_least("chunk_size", chunk_size, 1)
        self.memory = memory

    def _attribute_pair(self, pair: Pair) -> Tensor:
        faces, channels = self._at_once(pair)
        if faces >= len(pair.images):
            return blurred(self._maps(pair, channels), self.blur)
        groups = [pair.only(slice(at, at + faces)) for at in range(0, len(pair.images), faces)]
        with torch.no_grad():
            units = [functional.normalize(self._features(group)(group.images), dim=1) for group in groups]
        partners = pair.partners_of(torch.cat(units)).split(faces)
        known = (replace(group, partners=others) for group, others in zip(groups, partners, strict=True))
        return blurred(torch.cat([self._maps(group, channels) for group in known]), self.blur)

    def _features(self, pair: Pair) -> Callable[[Tensor], Tensor]:
        """Function from images to what is differentiated."""
        return self._embed(pair, raw=self.embedding == "raw")

    def _at_once(self, pair: Pair) -> tuple[int, int]:
        """How many faces, and how many channels of each, the gradients are computed of at once."""
        count = len(pair.images)
        if self.memory is None:
            return count, max(1, self.chunk_size // count)
        first = pair.only(slice(0, 1))

        def function(images: Tensor) -> Tensor:
            arguments = with_rows(first.forward_args, 1, lambda row: row.expand(len(images), *row.shape[1:]))
            return self._features(Pair(images, None, arguments))(images)

        kept, needed = pass_memory(function, first.images)
        memory = int(self.memory * 2**20)
        if memory < kept + needed:
            least = math.ceil((kept + needed) / 2**20)
            raise InputError(
                f"memory={self.memory:g} MiB is too little: a gradient of a face takes {least} MiB"
            )
        most = min(count, self.chunk_size)
        faces = min(most, max(1, (memory - self.chunk_size * needed) // max(1, kept)))
        channels = (memory - faces * kept) // (faces * needed)
        return faces, max(1, min(self.chunk_size // faces, channels))

    def _maps(self, pair: Pair, at_once: int) -> Tensor:
        """Maps of all images, `at_once` channels together."""
        features, pullback = pull_back(self._features(pair), pair.images)
        units = functional.normalize(features, dim=1)
        evidence = channel_evidence(units, pair.partners_of(units), self.threshold, self.level)
        maps = torch.zeros_like(pair.images)
        cotangents = one_hot_cotangents(range(features.shape[1]), features)
        for some, weights in zip(cotangents.split(at_once), evidence.split(at_once, dim=1), strict=True):
            maps += weigh_channel_maps(weights, self._channel_maps(pullback(some)))
        return maps

    def _channel_maps(self, gradients: Tensor) -> Tensor:
        """Normalised maps K×M×C×H×W from gradients of the same shape."""
        if self.gradient == "absolute":
            grey = gradients.abs().mean(dim=2, keepdim=True)
            return (_normalised(grey) / gradients.shape[2]).expand_as(gradients)
        return _normalised(gradients)


def _normalised(maps: Tensor) -> Tensor:
    norms = maps.flatten(2).norm(dim=2)[..., None, None, None]
    tiny = torch.finfo(maps.dtype).tiny  # a channel without any gradient has an empty map
    normalised: Tensor = maps / norms.clamp_min(tiny)
    return normalised
