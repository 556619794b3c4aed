"""Counterfactual evidence: exchange, replace and transplant the regions of two faces, and see what the score does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL
from xfr_plugin.attr._base.regional import Comparer, RegionalAnswer, RegionalAttribution, RegionsFrom
from xfr_plugin.attr.counterfactual.model import CounterfactualModel, Form, shipped_model
from xfr_plugin.attr.counterfactual.readings import alone_readings, pair_readings
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.errors import InputError
from xfr_plugin.swaps.donors import as_images, synthetic_faces
from xfr_plugin.swaps.regions import FaceRegions, face_regions

__all__ = ["Counterfactual"]

_RESAMPLES = 200


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
    compared=True,
    trial_options={"donors": 2},
)
class Counterfactual(RegionalAttribution):
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
        regions: RegionsFrom = "found",
        donors: int = 4,
        population: Tensor | None = None,
        model: CounterfactualModel | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(forward_func, threshold, regions=regions)
        if population is not None and (population.ndim != 4 or not len(population)):
            raise InputError(f"population must be faces N×C×H×W, got shape {tuple(population.shape)}")
        self.donors = checked_at_least("donors", donors, 1)
        self.population = population
        self._model = model
        self.seed = seed

    @property
    def model(self) -> CounterfactualModel:
        """Of the evidence."""
        return self._model or shipped_model()

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

    def _answering(
        self, pair: Pair, regions: Sequence[FaceRegions]
    ) -> Callable[[Comparer, Sequence[int]], list[RegionalAnswer]]:
        donors = self._donors(pair.images)
        return lambda comparer, faces: self._read_one(comparer, pair, faces, regions, donors)

    def _read_one(
        self,
        comparer: Comparer,
        pair: Pair,
        faces: Sequence[int],
        regions: Sequence[FaceRegions],
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
        return RegionalAnswer(regions, completed(readings.mean(dim=2)), resampled.std(dim=0), margin, score)

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
