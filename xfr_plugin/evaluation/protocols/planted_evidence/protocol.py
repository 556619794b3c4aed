"""Planted evidence as a protocol: does a map point at the region that is known to decide?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.localisation import energy_ratio, pixel_auc, points_inside
from xfr_plugin.evaluation.protocol import EvaluationPair, MapProtocol, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols.planted_evidence.scores import BLUR, blurred_saliency, candidate_masks
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE, Planting, effect_of, named_regions

__all__ = ["MOST_OF_CONTROLS", "PlantedEvidence", "PlantedPair"]

MOST_OF_CONTROLS = 0.03
"""Controls that move the score by less have nothing that a map could tell; the others are other photographs, too."""


@dataclass(frozen=True)
class PlantedPair(EvaluationPair):
    """A pair whose probe has something planted in it; `genuine` says what the pair was before.

    Attributes:
        planting: what was planted.
        before: the probe before that, 8-bit RGB, 3×H×W.
    """

    planting: Planting
    before: Tensor


class PlantedEvidence(MapProtocol):
    """Scores of the probe's map against the planted region.

    For the scores of pixels the map (its negative in the dissimilar game) is blurred with σ = `BLUR`, so that grain
    and patch size do not decide. Regions are compared by their means, to which grain does nothing and a blur does
    harm: it mixes a narrow region with its neighbours, so that not even a perfect map would always name the brows.

    - `auc`: probability that a pixel of the planted region is more salient than another of the face.
    - `top1`: the region with the highest mean saliency is (one of) the planted.
    - `top1 blurred`: the same, of the blurred map.
    - `chance`: what `top1` is for a guess: planted regions over regions seen on the face, 1/7 or 2/7.
    - `both`: the two most salient regions are the two planted ones; for pairs of regions only.
    - `energy`: share of the positive part in the region, over its share of the face's area.
    - `pointing`: the most salient pixel lies in the region (Zhang et al., 2018).

    Args:
        blur: σ of the blur, as a share of the face's height.
    """

    name = "planted"
    title = "Planted evidence"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "auc": True,
        "top1": True,
        "both": True,
        "energy": True,
        "pointing": True,
    }
    sides: Literal["both", "probe"] = "probe"
    planted = True
    options = ("blur",)

    def __init__(self, blur: float = BLUR) -> None:
        self.blur = blur

    def salient_sign(self, pair: EvaluationPair) -> int:
        """In the dissimilar game, what argues against is salient."""
        return 1 if _planting(pair).game == "similar" else -1

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterable[Measurement]:
        """See `MapProtocol`."""
        planting, labels = _planting(pair), pair.probe_regions
        saliency = blurred_saliency(maps[0], planting, self.blur)
        truth, face = labels.mask(*named_regions(planting.region)), labels.face
        candidates, planted = candidate_masks(labels), set(planting.region.split("+"))
        ranked = _ranked(blurred_saliency(maps[0], planting, 0), candidates)
        yield Measurement("", "auc", pixel_auc(saliency, truth, face))
        yield Measurement("", "top1", float(ranked[0] in planted))
        yield Measurement("", "top1 blurred", float(_ranked(saliency, candidates)[0] in planted))
        yield Measurement("", "chance", len(planted & set(candidates)) / len(candidates))
        if len(planted) == 2:
            yield Measurement("", "both", float(set(ranked[:2]) == planted))
            yield Measurement("", "chance of both", 1 / comb(len(candidates), 2))
        yield Measurement("", "energy", energy_ratio(saliency, truth, face))
        yield Measurement("", "pointing", float(points_inside(saliency, truth, face)))

    def slices(self, facts: Mapping[str, object]) -> tuple[str, ...]:
        """By game and kind; at full strength also by what the planting did, by seam, and single regions by region."""
        game, region = str(facts["game"]), str(facts["region"])
        change = float(np.float64(facts["moved"]))  # type: ignore[arg-type]  # a number
        moved = effect_of(game, change) > MIN_SCORE_CHANGE
        if facts["control"]:
            kind = f"{game}, control"
            still = (f"{kind}, moved < {MOST_OF_CONTROLS:g}",) if abs(change) < MOST_OF_CONTROLS else ()
            return (kind, *still, f"{kind}, {facts['blending']}")
        if facts["strength"] != 1:
            return (f"{game}, strength {facts['strength']:g}",)
        kind = f"{game}, two regions" if "+" in region else game
        names = (kind, f"{kind}, moved > {MIN_SCORE_CHANGE:g}") if moved else (kind,)
        if "+" in region:
            return names
        seam = f"{game}, {facts['blending']}"
        by_seam = (seam, f"{seam}, moved > {MIN_SCORE_CHANGE:g}") if moved else (seam,)
        return (*names, *by_seam, f"{game}: {region}")


def _ranked(saliency: NDArray[np.float64], regions: Mapping[str, NDArray[np.bool_]]) -> list[str]:
    """Names of regions, the highest mean first."""
    return sorted(regions, key=lambda name: -float(saliency[regions[name]].mean()))


def _planting(pair: EvaluationPair) -> Planting:
    if not isinstance(pair, PlantedPair):
        raise InputError("planted evidence can only be judged on planted pairs")
    return pair.planting
