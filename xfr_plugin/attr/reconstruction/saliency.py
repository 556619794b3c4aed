"""Similarity saliency through face reconstruction (after Xu, Lu and Ebrahimi, MMSP 2023, arXiv 2306.00402)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr._base.complete import CompletePairAttribution
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr._base.prepared import Explained, Prepared
from xfr_plugin.attr.reconstruction.explainer import Ablation, DecoderSource, open_decoder
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.channels.decoded import decoded_changes, sized_maps
from xfr_plugin.channels.evidence import EvidenceLevel, channel_evidence, weigh_channel_maps
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.reconstruction.files import find_decoder
from xfr_plugin.reconstruction.regional import RegionalEvidence, Spread

__all__ = ["ReconstructionSaliency", "Variant"]

Variant: TypeAlias = Literal["regional", "paper"]
"""`regional`: evidence of the face's regions, in the directions that the embedding moves in when they are exchanged
(`reconstruction.regional`; ours). `paper`: evidence of the single channels."""


@attribution_method(
    name="reconstruction",
    title="Reconstruction saliency",
    paper="after Xu, Lu and Ebrahimi, arXiv 2306.00402",
    year=2023,
    needs="decoder",
    cost="1 forward",
    relative_cost=0.3,
    caveat="it divides the score among eight regions by how embeddings respond to them, and where it is known "
    "which region decides it names the right one in a quarter to a half of the cases",
    batchable=True,
    preferred=2,
    compared=True,
)
class ReconstructionSaliency(CompletePairAttribution):
    """The saliency rule S = Σ_k c_k · M_k over maps from the decoder; Σ S = s − τ, the decision margin.

    The recognizer is run once and never differentiated. From its unit embeddings everything follows: a pair whose
    reference is only an embedding is explained as well as one with two photos.

    `paper`: c_k is the evidence of channel k, and M_k shows where the reconstruction changes when it is ablated.
    Measured on planted evidence this points hardly better than chance, since single channels are not local.
    `regional`: k runs over the regions of the face; c_k is a region's evidence and M_k where reconstructions change
    with it. This is the default variant because it points better on known evidence.

    Every colour of the returned map holds an equal part. Both faces of a pair get the same regional map with
    `source="atlas"`, since regional evidence belongs to the pair.

    Args:
        forward_func, threshold: see `PairAttribution`.
        decoder: see `DecoderSource`; in its own type and on its own device.
        variant: see `Variant`.
        source: maps of the `atlas` (fast: one matrix product), or of this `face`: the paper's ablations, or how
            the face's own reconstruction changes when the embedding moves towards its partner region by region.
        level: what evidence is measured against, see `evidence.EvidenceLevel`.
        distance: evidence by product (0), by distance (1: (1−τ)/N − (a_k − b_k)²/2), or between; .3 for
            `regional` and 0 for `paper`, if left out. The sum is the same.
        standardised: of `regional`, see `RegionalEvidence.evidence`.
        spread: of `regional`, how the margin lies on the face, see `reconstruction.regional.Spread`.
        ablation: of `paper` from the `face`, what replaces a channel, see `Ablation`.
        centred: of `paper`, take the mean over channels from the maps and spread the margin evenly instead.
        norm: of `paper`, maps of which the sum (`l1`) or the root of the sum of squares (`l2`) is one. With
            `l2` there is no convergence delta.
        batch_size: faces decoded at once; bounds memory.

    Raises:
        InputError: an unknown option, no decoder, or a decoder without regional evidence.
        WeightsError: the decoder's file cannot be used.

    Example:
        >>> saliency = ReconstructionSaliency(recognizer)  # with the decoder that ships for it
        >>> maps, delta = saliency.attribute((probe, reference), return_convergence_delta=True)
        >>> bool(delta.abs() < 1e-4)  # each map sums to s − τ
        True
    """

    @classmethod
    def available_for(cls, recognizer: Recognizer) -> bool:
        """Whether a decoder with regional evidence ships for a recognizer."""
        try:
            return find_decoder(recognizer).regional is not None
        except InputError:
            return False

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        decoder: DecoderSource = None,
        variant: Variant = "regional",
        source: Literal["atlas", "face"] = "atlas",
        level: EvidenceLevel = "threshold",
        distance: float | None = None,
        standardised: bool = False,
        spread: Spread = "even",
        ablation: Ablation = "zero",
        centred: bool = False,
        norm: Literal["l1", "l2"] = "l1",
        batch_size: int = 64,
    ) -> None:
        super().__init__(forward_func, threshold)
        self.variant: Variant = checked_choice("variant", variant, "regional", "paper")
        if distance is not None and not 0 <= distance <= 1:
            raise InputError(f"distance must be between 0 (product) and 1 (distance), got {distance}")
        self.decoder = open_decoder(decoder, forward_func)
        if variant == "regional" and self.decoder.regional is None:
            raise InputError(
                f"decoder {self.decoder.card.name!r} has no regional evidence: measure it with "
                "`xfr train regions`, or use variant='paper'"
            )
        self.source = checked_choice("source", source, "atlas", "face")
        self.level: EvidenceLevel = checked_choice("level", level, "threshold", "score")
        self.distance = (0.3 if variant == "regional" else 0.0) if distance is None else float(distance)
        self.standardised = standardised
        self.spread: Spread = checked_choice("spread", spread, "even", "typical")
        self.ablation: Ablation = checked_choice("ablation", ablation, "zero", "mean", "partner")
        self.centred = centred
        self.norm: Literal["l1", "l2"] = checked_choice("norm", norm, "l1", "l2")
        self.batch_size = checked_at_least("batch_size", batch_size, 1)
        self._sized: tuple[object, Tensor] | None = None

    def has_convergence_delta(self) -> bool:
        """Whether the maps sum to the evidence: always, but for the paper's maps with `l2`."""
        return self.variant == "regional" or self.norm == "l1"

    def evidence(self, probe: Tensor, reference: Tensor) -> Tensor:
        """Evidence N×K of the regions or channels, from unit embeddings N×D; sums to s − τ (to 0 at score level)."""
        score = (probe * reference).sum(dim=1)
        if self.variant == "regional":
            level = score if self.level == "score" else self.threshold
            regional = self._regional()
            return regional.evidence(probe, reference, level, self.distance, self.standardised, self.spread)
        evidence = channel_evidence(probe, reference, self.threshold, self.level)
        own = probe.square() + reference.square()
        return evidence - self.distance / 2 * (own - own.mean(dim=1, keepdim=True))

    def explain_prepared(self, probes: Prepared, references: Prepared, *, errors: bool = False) -> Explained:
        """See `PairAttribution.explain_prepared`: embeddings are enough, and explain both sides."""
        sides = (probes, references)
        units = [side.units for side in sides if side.units is not None]
        if len(units) < 2:
            return super().explain_prepared(probes, references, errors=errors)
        shape = (3, *self.decoder.card.input_size)
        channels, *size = next((side.images.shape[1:] for side in sides if side.images is not None), shape)
        own, partners = (torch.cat(order).to(self.decoder.mean_embedding) for order in (units, units[::-1]))
        own, partners = functional.normalize(own, dim=1), functional.normalize(partners, dim=1)
        grey, _ = self._weighed(own, partners, (size[0], size[1]))
        maps = (grey[:, None] / channels).to(units[0]).expand(-1, channels, -1, -1)
        return Explained(maps[: len(units[0])], maps[len(units[0]) :])

    @torch.no_grad()
    def _maps_and_evidence(self, pair: Pair) -> tuple[Tensor, Tensor]:
        own = self._embed(pair)(pair.images).detach().to(self.decoder.mean_embedding)
        partners = functional.normalize(pair.partners_of(own), dim=1)
        grey, evidence = self._weighed(own, partners, (pair.images.shape[2], pair.images.shape[3]))
        maps = (grey[:, None] / pair.images.shape[1]).to(pair.images).expand_as(pair.images)
        return maps, evidence.to(pair.images)

    @torch.no_grad()
    def _weighed(self, own: Tensor, partners: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Maps M×H×W of faces and their evidence M, from their unit embeddings and their partners', M×D."""
        evidence = self.evidence(own, partners)
        if self.source == "atlas":
            grey = weigh_channel_maps(evidence, self._atlas(size)[:, None].expand(-1, len(own), -1, -1))
        else:
            grey = torch.cat(
                [
                    weigh_channel_maps(
                        evidence[i : i + 1], self._own_maps(own[i], partners[i], size)[:, None]
                    )
                    for i in range(len(own))
                ]
            )
        if self.variant == "paper" and self.centred:
            grey = grey + evidence.sum(dim=1)[:, None, None] / (size[0] * size[1])
        return grey, evidence.sum(dim=1)

    def _regional(self) -> RegionalEvidence:
        regional = self.decoder.regional
        assert regional is not None  # made sure at construction
        return regional

    def _atlas(self, size: tuple[int, int]) -> Tensor:
        """Maps K×H×W of all faces."""
        maps = self._regional().maps if self.variant == "regional" else self.decoder.atlas
        key = (size, id(maps), maps._version)
        sized = self._sized  # another thread may replace it
        if sized is None or sized[0] != key:
            sized = self._sized = key, self._normalised(maps, size)
        return sized[1]

    def _own_maps(self, own: Tensor, partner: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps K×H×W of one face."""
        if self.variant == "regional":
            moved = functional.normalize(own + self._regional().shifts.to(own) @ (partner - own), dim=1)
            images = self.decoder(torch.cat((own[None], moved)))
            return self._normalised((images[1:] - images[:1]).abs().mean(dim=1), size)
        replacement: Tensor | float = {"mean": self.decoder.mean_embedding, "partner": partner}.get(
            self.ablation, 0.0
        )
        every = torch.arange(len(own), device=own.device)[None]
        changes = decoded_changes(self.decoder, own[None], every, replacement, batch_size=self.batch_size)
        return self._normalised(changes[0], size)

    def _normalised(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        norm = self.norm if self.variant == "paper" else "l1"
        sized = sized_maps(maps, size, norm)
        return sized - sized.mean(dim=0) if self.variant == "paper" and self.centred else sized
