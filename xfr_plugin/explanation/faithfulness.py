"""Does the score follow what an explanation points at? Change it, and see.

What a map calls similar is hidden under the mean face of a population: the score should fall more than it does for
other regions of the same size and shape. What it calls dissimilar is exchanged for the partner's pixels: the score
should rise more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from xfr_plugin.base.documents import Document
from xfr_plugin.base.statistics import smoothed
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.salient_region import random_regions, top_salient_region
from xfr_plugin.faces.regions import RegionMap, template_regions
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.donors import population_face
from xfr_plugin.swaps.exchange import exchange_regions
from xfr_plugin.swaps.masks import FeatheredMasks

__all__ = [
    "CONTRADICTED",
    "RULE",
    "SUPPORTED",
    "Claim",
    "Faithfulness",
    "FaithfulnessRow",
    "Verdict",
    "check_faithfulness",
    "verdict_of",
]

Verdict: TypeAlias = Literal["supported", "weak", "contradicted"]
Claim: TypeAlias = Literal["similar", "dissimilar"]
Map: TypeAlias = NDArray[np.floating]

LARGEST = 0.15
"""Share of the face's pixels that is changed, at most."""

SMALLEST = 0.02
"""A part of a map that covers a smaller share of the face claims nothing that could be tested …"""

FAINTEST = 0.05
"""… nor does one that holds a smaller share of all evidence in the face."""

RANDOM_REGIONS = 24
"""For each face and claim."""

SUPPORTED, CONTRADICTED = 1.8, -1.0
"""Bounds of the statistic, chosen on held-out people."""

RULE = (
    f"In each face, the {LARGEST:.0%} that the map calls most similar are replaced by the mean face of a population, "
    f"the {LARGEST:.0%} that it calls most dissimilar by the partner's pixels, and {RANDOM_REGIONS} random regions "
    "of the same size and shape likewise. A part's z says by how many standard deviations of the random regions the "
    "map's region moves the score further than they do, in the direction that the map foretells. The sum of z over "
    "the tested parts, divided by the root of their number, decides: supported from "
    f"{SUPPORTED:g}, contradicted to {CONTRADICTED:g}, weak between them, and where there is nothing to test."
)

_BLUR = 5 / 112
_BATCH = 16
_NO_EFFECT = 1e-6  # of a cosine: what rounding does
_SIGNS: dict[Claim, int] = {"similar": 1, "dissimilar": -1}


class FaithfulnessRow(Document):
    """One part of the maps: one face, one claim.

    Attributes:
        face: whose map is tested.
        claim: `similar`, the positive part of the map, or `dissimilar`, the negative one.
        change: what was done to the region: it was hidden under a mean face, or exchanged for the partner's pixels.
        share: of the face's pixels that were changed, 0…1.
        effect: score (cosine) after the map's region was changed, less the score before.
        random_mean: the same for the random regions, on average.
        random_low: 5 % quantile of the random regions' effects.
        random_high: 95 % quantile.
        percentile: share of the random regions that moved the score less far in the direction that the map foretells
            (down for `similar`, up for `dissimilar`), 0…1; ties count half.
        z: by how many standard deviations of the random regions' effects the map's region moved the score further
            in that direction than they did on average.
        reverses: changing the map's region reverses the decision.
    """

    face: Literal["probe", "reference"]
    claim: Claim
    change: Literal["hidden", "exchanged"]
    share: float = Field(gt=0, le=1)
    effect: float
    random_mean: float
    random_low: float
    random_high: float
    percentile: float = Field(ge=0, le=1)
    z: float
    reverses: bool


class Faithfulness(Document):
    """What became of an explanation's claims when they were tested.

    Attributes:
        verdict: `supported`, `weak` or `contradicted`.
        statistic: the number that decides; None where no part of the maps can be tested.
        rows: the tested parts: of the probe, then of the reference; similar, then dissimilar.
        rule: from rows to verdict, in words.
        seed: of the random regions.
        forwards: images that were embedded.
    """

    verdict: Verdict
    statistic: float | None
    rows: tuple[FaithfulnessRow, ...]
    rule: str
    seed: int
    forwards: int


def check_faithfulness(
    recognizer: Recognizer,
    inputs: tuple[Tensor, Tensor],
    maps: Sequence[Map],
    threshold: float,
    *,
    seed: int = 0,
    regions: RegionMap | None = None,
    random_count: int = RANDOM_REGIONS,
) -> Faithfulness:
    """Test the maps of a pair by changing the faces where they point, see `RULE`.

    Maps are blurred first (σ = 5 pixels of 112), so that grain does not decide. A part of a map that covers less than
    2 % of the face, or holds less than 5 % of the evidence in it, claims nothing and is left out. Changed regions
    fade out over a few pixels and take their surroundings' colour. About 100 forward passes for a pair.

    Args:
        recognizer: whose score is explained; the work is done where it is.
        inputs: probe and reference, 1×3×H×W in [0, 1]; or the probe and the reference's embedding, D or 1×D: only
            the probe is tested then, and what is dissimilar is hidden too, for want of pixels to exchange.
        maps: signed maps H×W of both, or of the probe alone.
        threshold: decision threshold on the cosine.
        seed: of the random regions; the same seed gives the same answer, and the global random state is not touched.
        regions: of both aligned faces, whose `face` is tested; those of the template, if left out.
        random_count: random regions for each face and claim, at least 2. The rule was calibrated with the default.

    Raises:
        InputError: inputs, maps or regions of other shapes, maps that are not finite, or too few random regions.
    """
    face = (regions or template_regions(recognizer.input_size)).face
    _check_arguments(recognizer, inputs, maps, face, random_count)
    scorer = _Scorer(recognizer, inputs)
    claims = [
        _Tested(side, claim, region, face)
        for side in range(len(scorer.images))
        for claim, region in _claims(maps[side], face)
    ]
    rows = []
    for tested in claims:
        rng = np.random.default_rng([seed, tested.side, _SIGNS[tested.claim] > 0])
        rows.append(_row(tested, scorer, threshold, random_count, rng))
    statistic = sum(row.z for row in rows) / math.sqrt(len(rows)) if rows else None
    return Faithfulness(
        verdict=verdict_of(statistic),
        statistic=statistic,
        rows=tuple(rows),
        rule=RULE,
        seed=seed,
        forwards=scorer.forwards,
    )


def verdict_of(statistic: float | None) -> Verdict:
    """Word for a statistic, by the rule; None, where nothing could be tested, is `weak`."""
    if statistic is None:
        return "weak"
    if statistic >= SUPPORTED:
        return "supported"
    return "contradicted" if statistic <= CONTRADICTED else "weak"


@dataclass(frozen=True)
class _Tested:
    """A claim of a map that can be tested: probe (0) or reference (1), and the region."""

    side: int
    claim: Claim
    region: NDArray[np.bool_]
    face: NDArray[np.bool_]


class _Scorer:
    """Scores changed faces of a pair against the partner's embedding."""

    @torch.no_grad()
    def __init__(self, recognizer: Recognizer, inputs: tuple[Tensor, Tensor]) -> None:
        images = [x.detach().to(recognizer.device, recognizer.dtype) for x in inputs if x.ndim == 4]
        self.images = images
        self.population = population_face(recognizer.input_size).to(images[0])
        self.recognizer = fast_recognizer(recognizer)
        self.forwards = 0
        own = self._represent(torch.cat(images))
        self.forwards += len(images)
        if len(images) == 1:
            reference = inputs[1].detach().to(own).reshape(1, -1)
            self.partners = functional.normalize(reference, dim=1)
        else:
            self.partners = own.flip(0)
        self.score = float(recognizer.compare(own[:1], self.partners[:1]))

    @torch.no_grad()
    def effects(self, tested: _Tested, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What changing each of the regions R×H×W does to the score."""
        image = self.images[tested.side]
        exchanged = self.change(tested) == "exchanged"
        donor = self.images[1 - tested.side] if exchanged else self.population
        found = []
        for chunk in torch.from_numpy(masks).split(_BATCH):
            blends = exchange_regions(image, donor, FeatheredMasks.of(chunk))[0]
            found.append(self._compare(self._represent(blends), tested.side) - self.score)
        effects: NDArray[np.float64] = torch.cat(found).double().cpu().numpy()
        return effects

    def change(self, tested: _Tested) -> Literal["hidden", "exchanged"]:
        """What is done to a region."""
        return "exchanged" if tested.claim == "dissimilar" and len(self.images) == 2 else "hidden"

    def _represent(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        return self.recognizer.represent(images)

    def _compare(self, rows: Tensor, side: int) -> Tensor:
        """Scores of versions of one side against its partner."""
        partner = self.partners[side].expand_as(rows)
        return self.recognizer.compare(*((partner, rows) if side else (rows, partner)))


def _claims(saliency: Map, face: NDArray[np.bool_]) -> Iterator[tuple[Claim, NDArray[np.bool_]]]:
    """Parts of a map that claim enough to be tested, and their regions."""
    smooth = smoothed(np.asarray(saliency), _BLUR)
    total = float(np.abs(smooth[face]).sum())
    for claim, sign in _SIGNS.items():
        part = np.where(face, np.maximum(sign * smooth, 0), 0)
        if part.sum() <= FAINTEST * total:
            continue
        region = top_salient_region(part, face, LARGEST, SMALLEST)
        if region is not None:
            yield claim, region


def _row(
    tested: _Tested, scorer: _Scorer, threshold: float, count: int, rng: np.random.Generator
) -> FaithfulnessRow:
    masks = np.concatenate([tested.region[None], random_regions(tested.region, tested.face, count, rng)])
    effects = scorer.effects(tested, masks)
    foretold = -_SIGNS[tested.claim] * effects
    own, others = foretold[0], foretold[1:]
    spread = max(float(others.std(ddof=1)), _NO_EFFECT)
    low, high = np.quantile(effects[1:], [0.05, 0.95])
    return FaithfulnessRow(
        face="reference" if tested.side else "probe",
        claim=tested.claim,
        change=scorer.change(tested),
        share=float(tested.region.sum() / tested.face.sum()),
        effect=float(effects[0]),
        random_mean=float(effects[1:].mean()),
        random_low=float(low),
        random_high=float(high),
        percentile=float(np.mean(others < own) + np.mean(others == own) / 2),
        z=float((own - others.mean()) / spread),
        reverses=bool((scorer.score + effects[0] >= threshold) != (scorer.score >= threshold)),
    )


def _check_arguments(
    recognizer: Recognizer,
    inputs: tuple[Tensor, Tensor],
    maps: Sequence[Map],
    face: NDArray[np.bool_],
    random_count: int,
) -> None:
    """Refuse what cannot be tested; see `check_faithfulness`."""
    size = recognizer.input_size
    images = [x for x in inputs if x.ndim == 4]
    if len(inputs) != 2 or inputs[0].ndim != 4 or any(len(image) != 1 for image in images):
        raise InputError(
            "inputs must be one probe and one reference, 1×3×H×W each; or a probe and an embedding"
        )
    if len(maps) < len(images) or any(np.shape(values) != size for values in maps):
        raise InputError(
            f"there must be a map of {size[0]}×{size[1]} for each face; sum maps over colours first"
        )
    if not all(np.isfinite(values).all() for values in maps):
        raise InputError("maps hold values that are not finite")
    if face.shape != size or not face.any():
        raise InputError(f"regions must be of size {size[0]}×{size[1]} and hold a face")
    if random_count < 2:
        raise InputError(f"at least 2 random regions are needed, got {random_count}")
