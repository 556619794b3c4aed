"""The level that evidence is measured from: what each region is expected to contribute to a genuine pair's score."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.swaps.regions import FaceRegions

if TYPE_CHECKING:
    from xfr_plugin.attr.intervention.attribution import RegionIntervention

__all__ = ["Level", "expected_shares", "levelled", "measure_shares", "region_shares"]

Level = Literal["threshold", "score", "none"]
"""What evidence sums to: s − τ, 0 (regions more or less alike than the pair is on the whole), or Σφ as it is."""


def expected_shares(shares: Mapping[str, float], regions: FaceRegions) -> Tensor:
    """Share of each region of a face in the score of genuine pairs, R, summing to 1; zero for those it does not show.

    Args:
        shares: of the regions by name, as measured.
        regions: of the face. Those that nothing was measured for take part by their area.
    """
    areas = regions.masks.mean(axis=(1, 2)) * regions.present
    known = np.array([sum(shares.get(name, np.nan) for name in names) for names in regions.grouping.values()])
    weights = np.where(np.isnan(known), areas, np.maximum(known, 0)) * regions.present
    return torch.from_numpy(weights / max(weights.sum(), 1e-12))


def levelled(values: Tensor, score: float, threshold: float, shares: Tensor, level: Level) -> Tensor:
    """Evidence …×R of values φ …×R: φ_r + (wanted − Σφ)·w_r, so that it sums to what `level` says.

    At `threshold` that is φ_r − τ·w_r, what the region brings more than its share of a genuine pair that scores τ,
    with the gap s − Σφ, where an index leaves one, spread in the same shares.
    """
    if level == "none":
        return values
    wanted = score - threshold if level == "threshold" else 0.0
    gaps = wanted - values.sum(dim=-1, keepdim=True)
    return values + gaps * shares.to(values)


@torch.no_grad()
def measure_shares(
    attribution: RegionIntervention, pairs: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Measure what share of a genuine pair's score each region brings, on average.

    Args:
        attribution: whose values are taken, without a level.
        pairs: genuine pairs of faces, each N×C×H×W, of people that the recognizer was not trained on.

    Returns:
        Shares by region, at least 0, summing to 1. A region that not every face shows has its mean over those that
        do.

    Raises:
        InputError: no pairs, the attribution has a level, or no region brings anything.
    """
    if attribution.level != "none":
        raise InputError("shares are measured on values without a level: use level='none'")
    sums: dict[str, list[float]] = {}
    for pair in pairs:
        for answer in (answer for side in attribution.regional(pair) for answer in side):
            shown = zip(answer.regions.names, answer.evidence.tolist(), answer.regions.present, strict=True)
            for name, value, is_present in shown:
                sums.setdefault(name, []).extend([value] if is_present else [])
    means = {name: max(0.0, sum(values) / len(values)) for name, values in sums.items() if values}
    whole = sum(means.values())
    if not whole:
        raise InputError("no region brings anything to the scores of these pairs: are they genuine?")
    return {name: mean / whole for name, mean in means.items()}


def region_shares(forward_func: object, index: str) -> Mapping[str, float]:
    """Shares measured for a recognizer, or those that ship for any other, by region.

    Args:
        forward_func: a recognizer, which brings its own, or any function.
        index: name of the method.
    """
    own = getattr(forward_func, "region_shares", None) or {}
    return own.get(index) or _shipped().get(index, {})


@cache
def _shipped() -> dict[str, dict[str, float]]:
    text = (resources.files("xfr_plugin.attr.intervention") / "levels.json").read_text(encoding="utf-8")
    shares: dict[str, dict[str, float]] = json.loads(text)
    return shares
