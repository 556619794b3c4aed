"""Counterfactual evidence: exchange, replace and transplant the regions of two faces, and see what the score does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.complete import largest_miss
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Inputs, Pair, _like_inputs, _refuse_target
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL, PerturbationPairAttribution
from xfr_plugin.attr._base.prepared import Explained, Prepared
from xfr_plugin.attr.counterfactual.model import CounterfactualModel, Form, shipped_model
from xfr_plugin.attr.counterfactual.readings import Comparer, alone_readings, pair_readings
from xfr_plugin.base.captum import (
    NullProgress,
    _format_additional_forward_args,
    log_usage,
    progress,
)
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.donors import as_images, synthetic_faces
from xfr_plugin.swaps.regions import FaceRegions, face_regions, named_errors, rasterize, regions_of

__all__ = ["Counterfactual", "RegionalAnswer"]

_RESAMPLES = 200


@dataclass(frozen=True)
class RegionalAnswer:
    """What the regions of one face contribute to the margin.

    Attributes:
        regions: where they are.
        evidence: of each region, R; sums to s − τ.
        errors: standard error of the evidence, R, from resampling the faces of nobody.
        margin: s − τ.
    """

    regions: FaceRegions
    evidence: Tensor
    errors: Tensor
    margin: float


@attribution_method(
    name="counterfactual",
    title="Counterfactual evidence of regions",
    paper="ours",
    year=2026,
    needs="scores",
    cost="150 forward",
    relative_cost=75,
    caveat="it tells what the score would do with other regions; where it is known which "
    "region decides it names the right one in three of four cases, and a region that differs much can hide another",
    preferred=2,
    compared=True,
    trial_options={"donors": 2},
)
class Counterfactual(PerturbationPairAttribution):
    """Regions argue for or against a match by what would become of the score without them; Σ S = s − τ.

    A black box is enough: nothing is asked of the recognizer but embeddings of changed faces, or scores
    (`from_scores`). Every region of a face, as found on that face, is given the partner's (*exchange*), replaced by
    that of faces of nobody (*removal*), and is put into faces of nobody (*transplant*); `_interventions` lists what
    is read. A model with few weights (`counterfactual_model`), fitted on plantings among training people, makes of
    the readings how much of the score each region is likely to decide. What that leaves of the margin is divided by
    what the interventions did to the score, as far as no region stands out, and evenly otherwise. Evidence lies
    on the core of a region: outlines are uncertain.

    2 + 2R + (1 + 4R)·K forward passes a pair for R = 8 regions and K faces of nobody; 1 + (1 + 2R)·K for a probe
    against an embedding, with which nothing can be exchanged, so that it is read less surely.

    This is ours. To intervene and look at the score is as old as occlusion (Zeiler and Fergus, 2014); here changed
    faces stay faces, and what was learned from known evidence is written down in a few weights.

    Args:
        forward_func, threshold: see `PairAttribution`.
        regions: `found` on each face (`faces.outlines`), or of the `template`.
        donors: K, faces of nobody that regions are replaced by.
        population: other faces to take instead of synthetic ones, N×3×H×W in [0, 1], at the size of the inputs.
        model: of the evidence; the shipped one, if left out.
        seed: of the synthetic faces, and of the resampling for errors.

    Raises:
        InputError: an unknown option.

    Example:
        >>> def score(probes, references):  # a black box will do
        ...     return torch.cosine_similarity(recognizer(probes), recognizer(references))
        >>> counterfactual = Counterfactual.from_scores(score, threshold=0.3)
        >>> probe_map, reference_map = counterfactual.attribute((probe, reference))
        >>> margin = float(score(probe, reference) - 0.3)
        >>> abs(float(probe_map.sum()) - margin) < 1e-4
        True
    """

    reads_both_faces = True

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        regions: Literal["found", "template"] = "found",
        donors: int = 4,
        population: Tensor | None = None,
        model: CounterfactualModel | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(forward_func, threshold)
        if population is not None and (population.ndim != 4 or not len(population)):
            raise InputError(f"population must be faces N×C×H×W, got shape {tuple(population.shape)}")
        self.regions = checked_choice("regions", regions, "found", "template")
        self.donors = checked_at_least("donors", donors, 1)
        self.population = population
        self._model = model
        self.seed = seed

    @property
    def model(self) -> CounterfactualModel:
        """Of the evidence."""
        return self._model or shipped_model()

    def has_convergence_delta(self) -> bool:
        """Whether the maps sum to the margin: always."""
        return True

    @overload
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
        perturbations_per_eval: int = PERTURBATIONS_PER_EVAL,
        show_progress: bool = False,
        *,
        return_convergence_delta: Literal[True],
    ) -> tuple[Inputs, Tensor]: ...

    @overload
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
        perturbations_per_eval: int = PERTURBATIONS_PER_EVAL,
        show_progress: bool = False,
        return_convergence_delta: Literal[False] = False,
    ) -> Inputs: ...

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # Captum is not typed for mypy here
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
        perturbations_per_eval: int = PERTURBATIONS_PER_EVAL,
        show_progress: bool = False,
        return_convergence_delta: bool = False,
    ) -> Inputs | tuple[Inputs, Tensor]:
        """Attribute the score of each pair to its pixels; see `PerturbationPairAttribution.attribute`.

        `return_convergence_delta` is told at `CompletePairAttribution.attribute`; what is missed here is the margin.
        """
        images = inputs if isinstance(inputs, tuple) else (inputs,)
        answers = self._answers(
            images, target, additional_forward_args, perturbations_per_eval, show_progress
        )
        maps = torch.cat(_stacked(answers, images))
        output = _like_inputs(maps, inputs)
        if not return_convergence_delta:
            return output
        margins = maps.new_tensor([answer.margin for side in answers for answer in side])
        return output, largest_miss(maps, margins, len(images))

    def regional(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        additional_forward_args: object | None = None,
        perturbations_per_eval: int = PERTURBATIONS_PER_EVAL,
    ) -> tuple[list[RegionalAnswer], ...]:
        """What the maps are drawn from: the answers of each input face, with standard errors; see `attribute`."""
        images = inputs if isinstance(inputs, tuple) else (inputs,)
        return self._answers(images, None, additional_forward_args, perturbations_per_eval, False)

    def explain_prepared(self, probes: Prepared, references: Prepared, *, errors: bool = False) -> Explained:
        """See `PairAttribution.explain_prepared`: regions are taken from there.

        Those of the template are no face's own, so they have no errors.
        """
        sides = (probes, references)
        images = tuple(side.images for side in sides if side.images is not None)
        if not images:
            return super().explain_prepared(probes, references, errors=errors)
        known = [side.regions for side in sides if side.images is not None]
        partner = next((side.units for side in sides if side.images is None), None)
        pair = self._read(images, () if partner is None else (partner,))
        regions = None if None in known else [region for side in known for region in side or ()]
        answers = self._answers_of(pair, len(images), regions=regions)
        maps = iter(_stacked(answers, images))
        by_side = [None if side.images is None else next(maps) for side in sides]
        if not errors or self.regions != "found" or len(images) < 2:
            return Explained(by_side[0], by_side[1])
        a, b = ([named_errors(answer.regions, answer.errors) for answer in side] for side in answers)
        return Explained(by_side[0], by_side[1], list(zip(a, b, strict=True)))

    @torch.no_grad()
    def readings(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, NDArray[np.bool_]]:
        """What the interventions on one pair read for its probe, from which models are fitted.

        Args:
            pair: probe and reference, each 1×C×H×W.

        Returns:
            `PAIR_READINGS` of every region, R×F, and which regions the probe shows, R.
        """
        images = torch.cat(pair)
        regions = face_regions(images, self.regions == "found")
        comparer = self._comparers(Pair(images, None, ()), PERTURBATIONS_PER_EVAL)(0)
        _, own, _ = pair_readings(
            comparer, (images[0], images[1]), (regions[0], regions[1]), self._donors(images)
        )
        return own.mean(dim=2), regions[0].present

    def _answers(
        self, images: tuple[Tensor, ...], target: object, arguments: object, limit: int, show_progress: bool
    ) -> tuple[list[RegionalAnswer], ...]:
        pair = self._read(images, _format_additional_forward_args(arguments) or ())
        _refuse_target(len(images[0]), target)
        checked_at_least("perturbations_per_eval", limit, 1)
        return self._answers_of(pair, len(images), limit, show_progress)

    @torch.no_grad()
    def _answers_of(
        self,
        pair: Pair,
        sides: int,
        limit: int = PERTURBATIONS_PER_EVAL,
        show_progress: bool = False,
        regions: Sequence[RegionMap] | None = None,
    ) -> tuple[list[RegionalAnswer], ...]:
        if regions is not None and self.regions == "found":
            found = regions_of(regions)
        else:
            found = face_regions(pair.images, self.regions == "found")
        donors = self._donors(pair.images)
        count, comparer_of = len(pair.images) // sides, self._comparers(pair, limit)
        answers: tuple[list[RegionalAnswer], ...] = tuple([] for _ in range(sides))
        with self._shown(count, show_progress) as bar:
            for index in range(count):
                faces = [index + side * count for side in range(sides)]
                read = self._read_one(comparer_of(index), pair, faces, found, donors)
                for side, answer in zip(answers, read, strict=True):
                    side.append(answer)
                bar.update(1)
        return answers

    def _attribute_pair(self, pair: Pair) -> Tensor:
        sides = 2 if pair.partners is None else 1
        return torch.cat(_stacked(self._answers_of(pair, sides), pair.images.chunk(sides)))

    def _read_one(
        self,
        comparer: Comparer,
        pair: Pair,
        faces: list[int],
        regions: list[FaceRegions],
        donors: Tensor,
    ) -> list[RegionalAnswer]:
        if len(faces) == 1:
            assert pair.partners is not None  # an embedding, or what a score function takes
            own = regions[faces[0]]
            score, readings = alone_readings(
                comparer, pair.images[faces[0]], pair.partners[faces[0] % len(pair.partners)], own, donors
            )
            return [self._answer("alone", float(score), readings, own)]
        a, b = (pair.images[face] for face in faces)
        both = (regions[faces[0]], regions[faces[1]])
        score, *sides = pair_readings(comparer, (a, b), both, donors)
        return [self._answer("pair", float(score), side, own) for side, own in zip(sides, both, strict=True)]

    def _answer(self, form: Form, score: float, readings: Tensor, regions: FaceRegions) -> RegionalAnswer:
        areas = readings.new_tensor(regions.masks.sum(axis=(1, 2)) * regions.present)
        margin = score - self.threshold

        def completed(mean: Tensor) -> Tensor:
            return self.model.evidence(form, mean, areas, margin)

        count = readings.shape[2]
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(count, (_RESAMPLES, count), generator=generator).to(readings.device)
        weights = torch.nn.functional.one_hot(drawn, count).to(readings).mean(dim=1)
        resampled = completed(torch.einsum("rfk,bk->brf", readings, weights))
        return RegionalAnswer(regions, completed(readings.mean(dim=2)), resampled.std(dim=0), margin)

    def _comparers(self, pair: Pair, limit: int) -> Callable[[int], Comparer]:
        """From the index of a pair, what scores versions of its faces, with that pair's further arguments."""

        def at(index: int, faces: Tensor) -> Tensor:
            return torch.full((len(faces),), index, device=faces.device)

        if self.scores_only:
            score = self._score_rows(pair)
            return lambda index: Comparer(
                lambda faces: faces,
                lambda left, right: score(left, right, at(index, left)),
                3,
                limit,
            )
        embed = self._embed_rows(pair, limit)  # a folded copy of the network is made once for all pairs
        return lambda index: Comparer(
            lambda faces: embed(faces, at(index, faces)),
            lambda left, right: (left * right.to(left)).sum(dim=-1),
            1,
            limit,
        )

    def _donors(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        if self.population is None:
            faces = synthetic_faces(self.donors, size, self.seed)
        else:
            faces = self.population[: self.donors]
        if faces.shape[2:] != images.shape[2:]:
            raise InputError(
                f"the population's faces are {tuple(faces.shape[2:])} pixels, the inputs {size}: resize them"
            )
        return as_images(faces, images)

    def _shown(self, count: int, show_progress: bool) -> Any:
        return (
            progress(desc=f"{self.get_name()} attribution", total=count) if show_progress else NullProgress()
        )


def _stacked(answers: tuple[list[RegionalAnswer], ...], images: tuple[Tensor, ...]) -> list[Tensor]:
    """Maps N×C×H×W of each side."""
    return [
        torch.stack([_drawn(*drawn) for drawn in zip(side, faces, strict=True)])
        for side, faces in zip(answers, images, strict=True)
    ]


def _drawn(answer: RegionalAnswer, image: Tensor) -> Tensor:
    """Map C×H×W on which the evidence of each region lies."""
    grey = rasterize(answer.regions, answer.evidence.to(image))
    return (grey / image.shape[0]).expand_as(image).contiguous()
