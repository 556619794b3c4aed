"""What planted maps are scored by: blurred saliency, and the regions that compete."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.statistics import smoothed
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.planting import PLANTED_REGIONS, Planting

__all__ = ["BLUR", "blurred_saliency", "candidate_masks"]

BLUR = 5 / 112
"""Maps are blurred before they are scored, so that grain and patch size do not decide: σ as a share of the height."""


def blurred_saliency(
    values: NDArray[np.float32], planting: Planting, blur: float = BLUR
) -> NDArray[np.float64]:
    """What a signed map H×W says about the game: itself in the similar one, else its negative; blurred."""
    signed = values.astype(np.float64) if planting.game == "similar" else -values.astype(np.float64)
    return smoothed(signed, blur)


def candidate_masks(labels: RegionMap) -> dict[str, NDArray[np.bool_]]:
    """Regions that compete for being the most salient: all that can be planted and are seen on this face."""
    masks = {name: labels.mask(*named) for name, named in PLANTED_REGIONS.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}
