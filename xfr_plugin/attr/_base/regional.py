"""The base of attributions that change whole regions of a face, and say what each region contributes to the score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor

from xfr_plugin.attr._base.complete import largest_miss
from xfr_plugin.attr._base.masks import ranges
from xfr_plugin.attr._base.pair import Inputs, Pair, _like_inputs, _refuse_target
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL, PerturbationPairAttribution
from xfr_plugin.attr._base.prepared import Explained, Prepared
from xfr_plugin.base.captum import NullProgress, _format_additional_forward_args, log_usage, progress
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.base.rows import of_one_length
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.backends import PAYS
from xfr_plugin.swaps.regions import (
    FaceRegions,
    face_regions,
    named_errors,
    rasterize,
    regions_of,
)

__all__ = ["Comparer", "RegionalAnswer", "RegionalAttribution", "RegionsFrom"]

RegionsFrom = Literal["found", "template"]
"""Regions are found on each face (`faces.outlines`), or are the template's."""


@dataclass(frozen=True)
class RegionalAnswer:
    """What the regions of one face contribute to the margin.

    Attributes:
        regions: where they are.
        evidence: of each region, R.
        errors: standard error of the evidence, R, from the choice of the faces that regions are replaced by.
        margin: what the evidence sums to: s − τ, unless the method says otherwise.
        score: s.
    """

    regions: FaceRegions
    evidence: Tensor
    errors: Tensor
    margin: float
    score: float


@dataclass(frozen=True)
class Comparer:
    """Scores of faces, from their embeddings or from a score function.

    Attributes:
        read: faces K×C×H×W to what `score` takes of them, a row for each: unit embeddings, or the faces themselves.
        score: rows K×… of both sides to scores K.
        row_ndim: dimensions of a row: 1 for an embedding, 3 for a face.
        limit: faces in one forward pass.
    """

    read: Callable[[Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    row_ndim: int
    limit: int

    def rows(self, faces: Tensor) -> Tensor:
        """Rows of faces …×C×H×W, with the same leading dimensions."""
        flat = faces.flatten(0, -4)
        read = torch.cat([self.read(flat[some]) for some in ranges(len(flat), self.limit)])
        rows: Tensor = read.unflatten(0, faces.shape[:-3])
        return rows

    def scores_against(self, rows: Tensor, partner: Tensor) -> Tensor:
        """Scores of rows against the row of one partner, which can be of another kind, such as a template."""
        flat = rows.flatten(0, -1 - self.row_ndim)
        return self._scored(flat, partner.expand(len(flat), *partner.shape)).view(
            rows.shape[: -self.row_ndim]
        )

    def _scored(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([self.score(left[some], right[some]) for some in ranges(len(left), self.limit)])


class RegionalAttribution(PerturbationPairAttribution):
    """Attribution by changes of whole regions; evidence lies on the core of each, since outlines are uncertain.

    Args:
        forward_func, threshold: see `PairAttribution`.
        regions: see `RegionsFrom`.

    Raises:
        InputError: an unknown option.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        regions: RegionsFrom = "found",
    ) -> None:
        super().__init__(forward_func, threshold)
        self.regions = checked_choice("regions", regions, "found", "template")

    @property
    def names_regions(self) -> bool:
        """Whether what is changed are a face's own named regions."""
        return self.regions == "found"

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
        with own_modes():
            answers = self._answers(
                images, target, additional_forward_args, perturbations_per_eval, show_progress
            )
            maps = torch.cat(_stacked(answers, images))
        output = _like_inputs(maps, inputs)
        if not return_convergence_delta:
            return output
        margins = maps.new_tensor([answer.margin for side in answers for answer in side])
        return output, largest_miss(maps, margins, len(images))

    @own_modes()
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

        Those of the template are no face's own, so they have no errors; nor has evidence from a single donor.
        """
        sides = (probes, references)
        images = tuple(side.images for side in sides if side.images is not None)
        if not images:
            return super().explain_prepared(probes, references, errors=errors)
        known = [side.regions for side in sides if side.images is not None]
        partner = next((side.units for side in sides if side.images is None), None)
        pair = self._read(images, () if partner is None else (partner,))
        regions = None if None in known else [region for side in known for region in side or ()]
        answers = self._answers_prepared(pair, [side for side in sides if side.images is not None], regions)
        maps = iter(_stacked(answers, images))
        by_side = [None if side.images is None else next(maps) for side in sides]
        known_errors = all(answer.errors.isfinite().all() for side in answers for answer in side)
        if not (errors and known_errors and self.names_regions) or len(images) < 2:
            return Explained(by_side[0], by_side[1])
        a, b = ([named_errors(answer.regions, answer.errors) for answer in side] for side in answers)
        return Explained(by_side[0], by_side[1], list(zip(a, b, strict=True)))

    def _answers_prepared(
        self, pair: Pair, sides: Sequence[Prepared], regions: Sequence[RegionMap] | None
    ) -> tuple[list[RegionalAnswer], ...]:
        """Answers of the sides that have images, of whose faces something is known."""
        return self._answers_of(pair, len(sides), regions=regions)

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
        answer = self._answering(pair, self._players(pair.images, regions))
        count, comparer_of = len(pair.images) // sides, self._comparers(pair, limit)
        answers: tuple[list[RegionalAnswer], ...] = tuple([] for _ in range(sides))
        with self._shown(count, show_progress) as bar:
            for index in range(count):
                faces = [index + side * count for side in range(sides)]
                for side, own in zip(answers, answer(comparer_of(index), faces), strict=True):
                    side.append(own)
                bar.update(1)
        return answers

    def _players(self, images: Tensor, known: Sequence[RegionMap] | None) -> list[FaceRegions]:
        """The regions of each face, from its named ones where they were found before."""
        if known is not None and self.regions == "found":
            return regions_of(known)
        return face_regions(images, self.regions == "found")

    @abstractmethod
    def _answering(
        self, pair: Pair, regions: Sequence[FaceRegions]
    ) -> Callable[[Comparer, Sequence[int]], list[RegionalAnswer]]:
        """What answers one pair after the other, from the numbers of its one or two faces among the images."""

    def _attribute_pair(self, pair: Pair) -> Tensor:
        sides = 2 if pair.partners is None else 1
        return torch.cat(_stacked(self._answers_of(pair, sides), pair.images.chunk(sides)))

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
        embed = self._embed_rows(
            pair, limit, self._passes(len(pair.images))
        )  # a folded copy of the network is made once for all pairs
        return lambda index: Comparer(
            lambda faces: embed(faces, at(index, faces)),
            lambda left, right: (left * of_one_length(right, left).to(left)).sum(dim=-1),
            1,
            limit,
        )

    def _passes(self, faces: int) -> int:
        """Forward passes that so many faces take, about."""
        return PAYS * faces

    def _shown(self, pairs: int, is_shown: bool) -> Any:
        return progress(desc=f"{self.get_name()} attribution", total=pairs) if is_shown else NullProgress()


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
