"""The level that evidence is measured from: what each region is expected to contribute to a genuine pair's score.

What a region brings grows with the area of it that a face shows, in proportion (`benchmarks/region_shares.py`): the
sliver of a cheek that is turned away is expected to bring a sliver's share. Hair is the exception.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.regions import FaceRegions

if TYPE_CHECKING:
    from xfr_plugin.attr.intervention.attribution import RegionIntervention

__all__ = [
    "Expected",
    "Level",
    "expected_of",
    "levelled",
    "measure_shares",
    "region_shares",
    "relative_areas",
]

Level = Literal["threshold", "score", "none"]
"""What evidence sums to: s − τ, 0 (regions more or less alike than the pair is on the whole), or Σφ as it is."""


@dataclass(frozen=True)
class Expected:
    """What the regions of a face are expected to say of a genuine pair.

    Attributes:
        shares: of each region in the score, R, summing to 1; zero for those that the face does not show.
        gain: what values sum to for each unit of the score: 1 for an index that leaves no gap.
    """

    shares: Tensor
    gain: float


def expected_of(measured: Mapping[str, float], regions: FaceRegions) -> Expected:
    """What was measured, for the regions that a face shows.

    Args:
        measured: values of the regions for each unit of the score, by name, see `measure_shares`.
        regions: of the face. If nothing was measured for any, they take part by their areas.
    """
    sizes = relative_areas(regions.labels)
    known = np.array(
        [
            sum(measured.get(name, 0.0) * sizes.get(name, 1.0) for name in names)
            for names in regions.grouping.values()
        ]
    )
    weights = np.maximum(known, 0) * regions.present
    if not weights.any():
        areas = regions.masks.mean(axis=(1, 2)) * regions.present
        return Expected(torch.from_numpy(areas / areas.sum()), 1.0)
    return Expected(torch.from_numpy(weights / weights.sum()), float(weights.sum()))


def relative_areas(labels: RegionMap) -> dict[str, float]:
    """How large regions are beside those of a usual face, by name: 1 is the mean of LFW's training people.

    Hair is left out.
    """
    usual = _shipped()["area"]
    shown = labels.areas()
    return {name: shown[name] / labels.labels.size / usual[name] for name in labels.names if name in usual}


def levelled(values: Tensor, score: float, threshold: float, expected: Expected, level: Level) -> Tensor:
    """Evidence …×R of values φ …×R: φ_r/γ + (wanted − Σφ/γ)·w_r, so that it sums to what `level` says.

    γ is the expected gain and w_r the expected share. At `threshold` evidence is φ_r/γ − τ·w_r, what the region
    brings more than its share of a genuine pair that scores τ, with the gap s − Σφ/γ, where one is left, spread in
    the same shares: a region that brings nothing where it brings something to typical genuine pairs is against.
    """
    if level == "none":
        return values
    wanted = score - threshold if level == "threshold" else 0.0
    scaled = values / expected.gain
    return scaled + (wanted - scaled.sum(dim=-1, keepdim=True)) * expected.shares.to(values)


@torch.no_grad()
def measure_shares(
    attribution: RegionIntervention, pairs: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Measure what each region brings to a genuine pair, on average, for each unit of its score.

    Args:
        attribution: whose values are taken, without a level.
        pairs: genuine pairs of faces, each N×C×H×W, of people that the recognizer was not trained on.

    Returns:
        By region, at least 0, for one of a usual face's area, see `relative_areas`. What they sum to is the gain of
        the index for a usual face: 1 if it leaves no gap.

    Raises:
        InputError: no pairs, the attribution has a level, or no region brings anything.
    """
    if attribution.level != "none":
        raise InputError("shares are measured on values without a level: use level='none'")
    brought: dict[str, float] = {}
    asked: dict[str, float] = {}
    for pair in pairs:
        for answer in (answer for side in attribution.regional(pair) for answer in side):
            sizes = relative_areas(answer.regions.labels)
            shown = zip(answer.regions.names, answer.evidence.tolist(), answer.regions.present, strict=True)
            for name, value in ((name, value) for name, value, is_present in shown if is_present):
                brought[name] = brought.get(name, 0.0) + value
                asked[name] = asked.get(name, 0.0) + answer.score * sizes.get(name, 1.0)
    shares = {name: max(0.0, value / asked[name]) for name, value in brought.items() if asked[name] > 0}
    if not any(shares.values()):
        raise InputError("no region brings anything to the scores of these pairs: are they genuine?")
    return shares


def region_shares(forward_func: object, index: str) -> Mapping[str, float]:
    """What was measured for a recognizer, or what ships for any other, by region; see `measure_shares`.

    Args:
        forward_func: a recognizer, which brings its own, or any function.
        index: name of the method.
    """
    holder = getattr(
        forward_func, "__self__", forward_func
    )  # of scores only, the recognizer's `compare` is given
    own = getattr(holder, "region_shares", None) or {}
    return own.get(index) or _shipped().get(index, {})


@cache
def _shipped() -> dict[str, dict[str, float]]:
    text = (resources.files("xfr_plugin.attr.intervention") / "levels.json").read_text(encoding="utf-8")
    shares: dict[str, dict[str, float]] = json.loads(text)
    return shares
