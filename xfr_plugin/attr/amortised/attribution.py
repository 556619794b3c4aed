"""Amortised evidence: what planting regions would show, read off the recognizer's feature maps in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr._base.complete import CompletePairAttribution
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Errors, Pair, _read_pair
from xfr_plugin.attr.amortised.model import (
    EvidenceModel,
    EvidenceSource,
    evidence_file,
    find_evidence,
    load_evidence,
)
from xfr_plugin.attr.amortised.network import Answers
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.features import Seen, reading
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.regions import FaceRegions, face_regions, named_errors, rasterize, regions_of

__all__ = ["Amortised", "AmortisedAnswer"]


@dataclass(frozen=True)
class AmortisedAnswer:
    """What the regions of one face contribute to the margin, and what the network says of them.

    Attributes:
        regions: where they are.
        evidence: of each region, R; sums to s − τ.
        answers: of the network, for one face.
        margin: s − τ.
    """

    regions: FaceRegions
    evidence: Tensor
    answers: Answers
    margin: float


@attribution_method(
    name="amortised",
    title="Amortised evidence of regions",
    paper="ours",
    year=2026,
    needs="evidence",
    cost="2 forward a face",
    relative_cost=5,
    caveat="a network trained for this recognizer says what planting regions would show, without planting them; "
    "docs/results.md says how often it names the right one where that is known, and a region that differs "
    "much can hide another",
    batchable=True,
    preferred=1,
    compared=True,
    needs_both_images=True,
    service_options={"mirrored": False},
)
class Amortised(CompletePairAttribution):
    """Regions argue for or against a match as a network says that was taught by interventions; Σ S = s − τ.

    `Counterfactual` changes the faces and asks the recognizer 150 times. Here a small network, trained for the
    recognizer (`training.evidence`), compares the recognizer's own feature maps of both faces and says which region
    would turn out to decide, and what the score would do with other regions. It was taught by plantings among
    training people, in which other regions have seams too, so that it has to tell evidence from seams. By what rule
    that becomes evidence, see `evidence_model`; it lies on the core of a region, as outlines are uncertain.

    Four images pass through the recognizer a pair: both faces, and both mirrored; the answers are averaged.

    This is ours; amortised explanation is after Dabkowski and Gal (NeurIPS 2017, arXiv 1705.07857) and Jethani et al.
    (FastSHAP, ICLR 2022, arXiv 2107.07436). How it compares: docs/results.md.

    Args:
        forward_func: a `Recognizer`, or another module whose feature maps `network` was trained for.
        threshold: see `PairAttribution`.
        network: see `EvidenceSource`.
        regions: `found` on each face (`faces.outlines`), or of the `template`.
        mirrored: average with the answers on the mirrored faces; without them faces pass once.

    Raises:
        InputError: an unknown option, no module, or no evidence network for it.
        WeightsError: the network's file cannot be used.

    Example:
        >>> amortised = Amortised(recognizer)
        >>> maps, delta = amortised.attribute((probe, reference), return_convergence_delta=True)
        >>> maps[0].shape
        torch.Size([1, 3, 112, 112])
        >>> bool(delta.abs() < 1e-4)  # each map sums to s − τ
        True
    """

    reads_both_faces = True

    @classmethod
    def available_for(cls, recognizer: Recognizer) -> bool:
        """Whether an evidence network ships for a recognizer."""
        return evidence_file(recognizer) is not None

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        network: EvidenceSource = None,
        regions: Literal["found", "template"] = "found",
        mirrored: bool = True,
    ) -> None:
        super().__init__(forward_func, threshold)
        if regions not in ("found", "template"):
            raise InputError(f"regions must be 'found' or 'template', got {regions!r}")
        if not isinstance(forward_func, nn.Module):
            raise InputError(
                "amortised evidence reads feature maps: pass a Recognizer or another torch module"
            )
        self.regions = regions
        self.mirrored = mirrored
        self.network = _opened(network, forward_func)
        self._module = forward_func.network if isinstance(forward_func, Recognizer) else forward_func

    def regional(
        self, inputs: tuple[Tensor, Tensor], additional_forward_args: tuple[object, ...] = ()
    ) -> tuple[list[AmortisedAnswer], list[AmortisedAnswer]]:
        """What the maps are drawn from: the answers of each probe, and of each reference.

        Args:
            inputs: probe and reference, N×C×H×W each.
            additional_forward_args: further arguments of the forward function.

        Raises:
            InputError: see `PairAttribution.attribute`.
        """
        answers = self._answers(_read_pair(inputs, additional_forward_args))
        half = len(answers) // 2
        return answers[:half], answers[half:]

    def see(self, images: Tensor, *arguments: object) -> Seen:
        """What `maps_of` needs of faces N×C×H×W, for those who embed them anyway.

        Raises:
            InputError: the network does not use a layer that is read.
        """
        names = self.network.layers
        with torch.no_grad(), reading(self._module, names) as kept:
            embeddings = functional.normalize(self.forward_func(images, *arguments), dim=1)
        missing = [name for name in names if name not in kept]
        if missing:
            raise InputError(f"the network did not use {missing[0]!r}, which amortised evidence reads")
        return Seen(tuple(kept[name] for name in names), embeddings)

    @torch.no_grad()
    def maps_of(self, seen: Seen, labels: Sequence[RegionMap]) -> Tensor:
        """Maps of faces that were seen before, without their mirror images.

        Args:
            seen: of N probes, followed by their N references.
            labels: regions of each face.

        Returns:
            Signed maps of the pixels, 2N×H×W.
        """
        regions = regions_of(labels)
        answers = self._answers_of([seen], regions)
        return torch.stack([rasterize(answer.regions, answer.evidence) for answer in answers]).to(
            seen.embeddings
        )

    @torch.no_grad()
    def attribute_with_errors(
        self, pair: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], Errors | None]:
        """See `PairAttribution.attribute_with_errors`.

        Errors are standard deviations of a region's evidence over both faces as they are and mirrored, each with the
        outlines shifted by two pixels of 112 to every side. They say how steady the answer is, not how true.
        """
        if self.regions != "found":
            return super().attribute_with_errors(pair)
        read = _read_pair(pair, ())
        regions, views = face_regions(read.images, True), self._views(read, True)
        used = views if self.mirrored else views[:1]
        probe, reference = self._maps(self._answers_of(used, regions), read).split(1)
        spread = self._varied(views, regions).std(dim=0)
        errors = [named_errors(region, error) for region, error in zip(regions, spread, strict=True)]
        return (probe.contiguous(), reference.contiguous()), (errors[0], errors[1])

    def _varied(self, views: Sequence[Seen], regions: Sequence[FaceRegions]) -> Tensor:
        """Evidence of both faces under small changes that mean nothing, V×2×R."""
        masks, present = _masks(regions, views[0].embeddings.device)
        step = max(1, round(_SHIFT * masks.shape[2]))
        found = []
        for turn, seen in enumerate(views):
            for shift in ((step, 0), (-step, 0), (0, step), (0, -step)):
                moved = masks.roll(shift, dims=(2, 3))
                said = self._ask(seen, moved.flip(3) if turn else moved, present)
                found.append(torch.stack([a.evidence for a in self._answered(said, seen, regions)]))
        return torch.stack(found)

    def _attribute_pair(self, pair: Pair) -> Tensor:
        answers = self._answers(pair)
        self._evidence = pair.images.new_tensor([answer.margin for answer in answers])
        return self._maps(answers, pair)

    def _maps(self, answers: Sequence[AmortisedAnswer], pair: Pair) -> Tensor:
        grey = torch.stack([rasterize(answer.regions, answer.evidence) for answer in answers]).to(pair.images)
        return (grey[:, None] / pair.images.shape[1]).expand_as(pair.images)

    @torch.no_grad()
    def _answers(self, pair: Pair) -> list[AmortisedAnswer]:
        if pair.partners is not None:
            raise InputError(
                "amortised evidence compares two images: explain a face against an embedding by 'counterfactual' or "
                "'reconstruction'"
            )
        regions = face_regions(pair.images, self.regions == "found")
        return self._answers_of(self._views(pair, self.mirrored), regions)

    def _views(self, pair: Pair, mirrored: bool) -> list[Seen]:
        """The faces as they are, and mirrored."""
        images = [pair.images, pair.images.flip(3)] if mirrored else [pair.images]
        return [self.see(view, *pair.forward_args) for view in images]

    def _answers_of(self, views: Sequence[Seen], regions: Sequence[FaceRegions]) -> list[AmortisedAnswer]:
        masks, present = _masks(regions, views[0].embeddings.device)
        answers = self._ask(views[0], masks, present)
        if len(views) == 2:
            answers = _mean(answers, self._ask(views[1], masks.flip(3), present))
        return self._answered(answers, views[0], regions)

    def _answered(self, said: Answers, seen: Seen, regions: Sequence[FaceRegions]) -> list[AmortisedAnswer]:
        units = seen.embeddings.double()
        margins = (units * units.roll(len(units) // 2, dims=0)).sum(dim=1) - self.threshold
        masks, present = _masks(regions, units.device)
        evidence = self.network.evidence(said, (masks.sum(dim=(2, 3)) * present).double(), margins)
        return [
            AmortisedAnswer(regions[i], evidence[i], said[i : i + 1], float(margins[i]))
            for i in range(len(regions))
        ]

    def _ask(self, seen: Seen, masks: Tensor, present: Tensor) -> Answers:
        """Answers of every face about itself and its partner, in 64 bits."""
        network = self.network.folded
        own = next(network.parameters())
        units, floating = seen.embeddings.to(own), masks.to(own)
        looks = network.look(Seen(tuple(values.to(own) for values in seen.maps), units))
        order = torch.arange(len(masks), device=masks.device).roll(len(masks) // 2)
        answers = network.answer(
            (looks, looks[order]), (units, units[order]), (floating, floating[order]), present
        )
        return Answers(*(getattr(answers, name).double() for name in _FIELDS))


_FIELDS = ("differs", "alike", "gain", "loss")
_SHIFT = 2 / 112


def _opened(source: EvidenceSource, function: nn.Module) -> EvidenceModel:
    if isinstance(source, EvidenceModel):
        return source
    recognizer = function if isinstance(function, Recognizer) else None
    if source is not None:
        return load_evidence(source, recognizer, "cpu" if recognizer is None else recognizer.device)
    if recognizer is None:
        raise InputError("pass network=…: only for a Recognizer is one looked up")
    return find_evidence(recognizer)


def _mean(first: Answers, second: Answers) -> Answers:
    """Mean answers; regions that are absent keep −∞."""
    return Answers(*((getattr(first, name) + getattr(second, name)) / 2 for name in _FIELDS))


def _masks(regions: Sequence[FaceRegions], device: torch.device) -> tuple[Tensor, Tensor]:
    """Masks N×R×H×W, and which of them the faces show, N×R."""
    masks, present = (
        torch.from_numpy(np.stack(kind)).to(device)
        for kind in ([r.masks for r in regions], [r.present for r in regions])
    )
    return masks, present
