"""How much of the most salient pixels lies in the region that is known to decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.options import checked_at_least
from xfr_plugin.base.statistics import checked_smoothing, smoothed
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, MapProtocol, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import (
    curve_mean,
    generator_for,
    percents,
    salient_order,
)
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedPair
from xfr_plugin.swaps.planting import named_regions

__all__ = ["Hiding", "HidingScores", "hiding_scores"]


@dataclass(frozen=True)
class HidingScores:
    """Overlap of the top p percent of the pixels with the true region, by p.

    Attributes:
        percent: p, 0 … 100.
        inside: share of the top pixels that lie in the region; NaN at p = 0.
        covered: share of the region that is among the top pixels.
        iou: intersection of the two over their union.
        iou_at_area: IoU where as many pixels are taken as the region has: 1 for a map that is exactly right.
        covered_auc: area under `covered` by the trapezoid rule, p as a share; about 1/2 for a random map.
    """

    percent: tuple[float, ...]
    inside: tuple[float, ...]
    covered: tuple[float, ...]
    iou: tuple[float, ...]
    iou_at_area: float
    covered_auc: float


def hiding_scores(
    saliency: NDArray[np.floating],
    truth: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    *,
    steps: int = 20,
    rng: np.random.Generator | None = None,
) -> HidingScores:
    """Take more and more of the most salient pixels of the face, and see how many lie in the true region.

    Args:
        saliency: H×W; higher means more salient.
        truth: H×W, the true region.
        inside: H×W, the face; other pixels do not count.
        steps: p goes from 0 to 100 in so many steps.
        rng: orders pixels of equal saliency; by a fixed seed if left out.

    Raises:
        InputError: shapes differ, or the region does not touch the face.
    """
    if not saliency.shape == truth.shape == inside.shape:
        raise InputError(f"map {saliency.shape}, region {truth.shape}, face {inside.shape} differ in size")
    is_true = truth[inside]
    area = int(is_true.sum())
    if area == 0 or steps < 1:
        raise InputError("the true region must touch the face, and steps be at least 1")
    order = salient_order(saliency[inside], rng or np.random.default_rng(0))
    hits = np.concatenate([[0], np.cumsum(is_true[order])]).astype(np.float64)
    taken = np.rint(np.linspace(0, is_true.size, steps + 1)).astype(np.intp)
    found = hits[taken]
    iou = found / (taken + area - found)
    return HidingScores(
        percent=tuple(percents(steps)),
        inside=tuple((found / np.where(taken > 0, taken, np.nan)).tolist()),
        covered=tuple((found / area).tolist()),
        iou=tuple(iou.tolist()),
        iou_at_area=float(hits[area] / (2 * area - hits[area])),
        covered_auc=curve_mean((found / area).tolist()),
    )


class Hiding(MapProtocol):
    """Overlap of the top p percent of the probe's map with the planted region, inside the face.

    After the hiding game of Castañón and Byrne (FG 2018), in which more and more of the face is hidden in the order
    of the map; here it is counted, without asking the recognizer, how much of what is taken lies where it is known
    that the evidence lies, see `hiding_scores`. In the dissimilar game the negative of the map is judged. Only for
    planted pairs. No forwards.

    Measured at each p, in percent: `inside`, `covered`, `iou`; once: `iou_at_area`, `covered_auc`.

    Args:
        steps: p goes from 0 to 100 percent in so many steps.
        smoothing: σ of a blur of the maps before pixels are ranked, as a share of the height.

    Raises:
        InputError: an option out of range.
    """

    name = "hiding"
    title = "Hiding game"
    higher_is_better: ClassVar[dict[str, bool]] = {"iou_at_area": True, "covered_auc": True}
    sides: Literal["both", "probe"] = "probe"
    planted = True
    options = ("steps", "smoothing")
    along = "pixels of the face taken, %"

    def __init__(self, *, steps: int = 20, smoothing: float = 0.04) -> None:
        self.steps = checked_at_least("steps", steps, 1)
        self.smoothing = checked_smoothing(smoothing)

    def salient_sign(self, pair: EvaluationPair) -> int:
        """In the dissimilar game, what argues against a match is salient."""
        return 1 if _planted(pair).planting.game == "similar" else -1

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterator[Measurement]:
        """Count; needs a planted pair."""
        planting, regions = _planted(pair).planting, pair.probe_regions
        found = hiding_scores(
            smoothed(self.salient_sign(pair) * maps[0], self.smoothing),
            regions.mask(*named_regions(planting.region)),
            regions.face,
            steps=self.steps,
            rng=generator_for(setting, pair, self.name),
        )
        curves: dict[str, Sequence[float]] = {
            "inside": found.inside,
            "covered": found.covered,
            "iou": found.iou,
        }
        for metric, values in curves.items():
            for percent, value in zip(found.percent, values, strict=True):
                if percent > 0:  # of no pixels there is no share
                    yield Measurement(planting.game, metric, value, percent)
        yield Measurement(planting.game, "iou_at_area", found.iou_at_area)
        yield Measurement(planting.game, "covered_auc", found.covered_auc)


def _planted(pair: EvaluationPair) -> PlantedPair:
    if not isinstance(pair, PlantedPair):
        raise InputError("the hiding game can only be played on planted pairs, whose true region is known")
    return pair
