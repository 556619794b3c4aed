"""Amortised evidence: what planting regions would show, read off the recognizer's feature maps in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from xfr_plugin.attr._base.complete import CompletePairAttribution
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair, _read_pair
from xfr_plugin.attr._base.prepared import Explained, Prepared, StandardErrors
from xfr_plugin.attr.amortised.model import (
    EvidenceModel,
    EvidenceSource,
    evidence_file,
    find_evidence,
    load_evidence,
)
from xfr_plugin.attr.amortised.network import Answers
from xfr_plugin.base.options import checked_choice
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.features import FaceFeatures, extract
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
    caveat="a network trained for this recognizer says what planting regions would show, without planting them. "
    "It names the right one in nine of ten pairs of the kind that it was taught by; on natural pairs the check "
    "of faithfulness supports it in one of four, and a region that differs much can hide another",
    batchable=True,
    compared=True,
    needs_both_images=True,
    service_options={"mirrored": False},
)
class Amortised(CompletePairAttribution):
    """Regions argue for or against a match as a network says that was taught by interventions; Σ S = s − τ.

    `LeaveOneOut` changes the faces and asks the recognizer 100 times. Here a small network, trained for the
    recognizer (`training.evidence`), compares the recognizer's own feature maps of both faces and says which region
    would turn out to decide, and what the score would do with other regions. It was taught by plantings among
    training people, in which other regions have seams too, so that it has to tell evidence from seams. By what rule
    that becomes evidence, see `evidence_model`; it lies on the core of a region, as outlines are uncertain.

    Four images pass through the recognizer a pair: both faces, and both mirrored; the answers are averaged.

    This is ours; amortised explanation is after Dabkowski and Gal (NeurIPS 2017, arXiv 1705.07857) and Jethani et al.
    (FastSHAP, ICLR 2022, arXiv 2107.07436).

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
        if not isinstance(forward_func, nn.Module):
            raise InputError(
                "amortised evidence reads feature maps: pass a Recognizer or another torch module"
            )
        self.regions = checked_choice("regions", regions, "found", "template")
        self.mirrored = mirrored
        self.network = _opened(network, forward_func)
        self._module = forward_func
        self._folded_network = self.network.folded

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

    def see(self, images: Tensor, *arguments: object) -> FaceFeatures:
        """Old name of `recognition.features.extract`."""
        _warn("see", "recognition.features.extract")
        return extract(self._module, images, self.layers, *arguments)

    @torch.no_grad()
    def maps_of(self, features: FaceFeatures, labels: Sequence[RegionMap]) -> Tensor:
        """Maps 2N×H×W of N probes and their references, without mirror images: what `explain_prepared` took over."""
        _warn("maps_of", "explain_prepared")
        answers = self._answers_of([self._viewed(features)], regions_of(labels))
        return torch.stack([rasterize(a.regions, a.evidence) for a in answers]).to(features.embeddings)

    @property
    def layers(self) -> tuple[str, ...]:
        """See `PairAttribution.layers`."""
        return self.network.layers

    @torch.no_grad()
    def explain_prepared(self, probes: Prepared, references: Prepared, *, errors: bool = False) -> Explained:
        """See `PairAttribution.explain_prepared`: embeddings, feature maps and regions are taken from there.

        Errors are standard deviations of a region's evidence over both faces as they are and mirrored, each with the
        outlines shifted by two pixels of 112 to every side. They say how steady the answer is, not how true. Those of
        the template's regions are no face's own, so there are none.
        """
        if probes.images is None or references.images is None:
            return super().explain_prepared(probes, references, errors=errors)
        pair, errors = _read_pair((probes.images, references.images), ()), errors and self.regions == "found"
        known = probes.regions and references.regions and [*probes.regions, *references.regions]
        regions = self._regions(pair, known)
        features = _features((probes, references), self.layers)
        views = [self._view(pair) if features is None else self._viewed(features)]
        if self.mirrored or errors:
            views.append(self._view(pair, mirrored=True))
        answers = self._answers_of(views if self.mirrored else views[:1], regions)
        maps = self._maps(answers, pair).contiguous().chunk(2)
        return Explained(maps[0], maps[1], self._errors(views, regions) if errors else None)

    def _errors(self, views: Sequence[_View], regions: Sequence[FaceRegions]) -> list[StandardErrors]:
        """Errors of each pair."""
        spread = self._varied(views, regions).std(dim=0)
        named = [named_errors(region, error) for region, error in zip(regions, spread, strict=True)]
        return list(zip(named[: len(named) // 2], named[len(named) // 2 :], strict=True))

    def _varied(self, views: Sequence[_View], regions: Sequence[FaceRegions]) -> Tensor:
        """Evidence of all faces under small changes that mean nothing, V×M×R."""
        masks, present = _masks(regions, views[0].units.device)
        step = max(1, round(_SHIFT * masks.shape[2]))
        found = []
        for view in views:
            for shift in ((step, 0), (-step, 0), (0, step), (0, -step)):
                predicted = self._predict(view, masks.roll(shift, dims=(2, 3)), present)
                found.append(torch.stack([a.evidence for a in self._answered(predicted, view, regions)]))
        return torch.stack(found)

    def _maps_and_evidence(self, pair: Pair) -> tuple[Tensor, Tensor]:
        answers = self._answers(pair)
        return self._maps(answers, pair), pair.images.new_tensor([answer.margin for answer in answers])

    def _maps(self, answers: Sequence[AmortisedAnswer], pair: Pair) -> Tensor:
        grey = torch.stack([rasterize(answer.regions, answer.evidence) for answer in answers]).to(pair.images)
        return (grey[:, None] / pair.images.shape[1]).expand_as(pair.images)

    @torch.no_grad()
    def _answers(self, pair: Pair) -> list[AmortisedAnswer]:
        if pair.partners is not None:
            raise InputError(
                "amortised evidence compares two images: explain a face against an embedding by 'leave_one_out' or "
                "'reconstruction'"
            )
        views = [self._view(pair, mirrored) for mirrored in ((False, True) if self.mirrored else (False,))]
        return self._answers_of(views, self._regions(pair))

    def _regions(self, pair: Pair, known: Sequence[RegionMap] | None = None) -> list[FaceRegions]:
        if known is not None and self.regions == "found":
            return regions_of(known)
        return face_regions(pair.images, self.regions == "found")

    def _view(self, pair: Pair, mirrored: bool = False) -> _View:
        """All faces, as they are or mirrored, passed through the recognizer.

        Raises:
            InputError: its network does not use a layer that is read.
        """
        images = pair.images.flip(3) if mirrored else pair.images
        return self._viewed(extract(self._module, images, self.layers, *pair.forward_args), mirrored)

    def _viewed(self, features: FaceFeatures, mirrored: bool = False) -> _View:
        network = self._folded_network
        own = next(network.parameters())
        maps, units = tuple(values.to(own) for values in features.maps), features.embeddings.to(own)
        return _View(features.embeddings, network.encode(FaceFeatures(maps, units)), mirrored)

    def _answers_of(self, views: Sequence[_View], regions: Sequence[FaceRegions]) -> list[AmortisedAnswer]:
        masks, present = _masks(regions, views[0].units.device)
        answers = self._predict(views[0], masks, present)
        if len(views) == 2:
            answers = _mean(answers, self._predict(views[1], masks, present))
        return self._answered(answers, views[0], regions)

    def _answered(
        self, predicted: Answers, view: _View, regions: Sequence[FaceRegions]
    ) -> list[AmortisedAnswer]:
        units = view.units.double()
        margins = (units * units.roll(len(units) // 2, dims=0)).sum(dim=1) - self.threshold
        masks, present = _masks(regions, units.device)
        evidence = self.network.evidence(predicted, (masks.sum(dim=(2, 3)) * present).double(), margins)
        return [
            AmortisedAnswer(regions[i], evidence[i], predicted[i : i + 1], float(margins[i]))
            for i in range(len(regions))
        ]

    def _predict(self, view: _View, masks: Tensor, present: Tensor) -> Answers:
        """Answers of every face about itself and its partner, in 64 bits; masks are of the faces as they are."""
        units, floating = view.units.to(view.encoded), masks.to(view.encoded)
        floating = floating.flip(3) if view.mirrored else floating
        order = torch.arange(len(masks), device=masks.device).roll(len(masks) // 2)
        answers = self._folded_network.predict(
            (view.encoded, view.encoded[order]), (units, units[order]), (floating, floating[order]), present
        )
        return Answers(*(getattr(answers, name).double() for name in _FIELDS))


@dataclass(frozen=True, eq=False)
class _View:
    """M faces, as they are or mirrored: their embeddings M×D, and what the network compares of them."""

    units: Tensor
    encoded: Tensor
    mirrored: bool


_FIELDS = ("differs", "alike", "gain", "loss")
_SHIFT = 2 / 112


def _warn(old: str, new: str) -> None:
    warnings.warn(f"Amortised.{old} is now {new}", DeprecationWarning, stacklevel=3)


def _features(sides: tuple[Prepared, Prepared], layers: Sequence[str]) -> FaceFeatures | None:
    """The features of probes and references, if all of them are known."""
    units = [side.units for side in sides if side.units is not None]
    if len(units) < 2 or any(name not in side.maps for side in sides for name in layers):
        return None
    return FaceFeatures(
        tuple(torch.cat([side.maps[name] for side in sides]) for name in layers), torch.cat(units)
    )


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
