"""How a map is judged against a known change of the face: where it points, and where its own change lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.statistics import smoothed
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.localisation import most_salient_region, pixel_auc
from xfr_plugin.evaluation.protocols.planted_evidence.scores import BLUR, candidate_masks
from xfr_plugin.faces.regions import RegionMap

__all__ = ["changed_regions", "clean_map", "scores_of_change", "scores_of_map", "share_inside"]

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


def changed_regions(candidates: Mapping[str, Mask], changed: Mask) -> set[str]:
    """Regions of which at least half was changed; the one that was changed most, if there is none."""
    shares = {name: float(changed[mask].mean()) for name, mask in candidates.items()}
    whole = {name for name, share in shares.items() if share >= 0.5}
    return whole or {max(shares, key=lambda name: shares[name])}


def scores_of_map(after: Map, changed: Mask, regions: RegionMap, sign: int) -> Iterator[tuple[str, float]]:
    """Does the map of the changed face point at what was changed?

    Args:
        after: signed map H×W.
        changed: H×W.
        regions: of the face before the change.
        sign: −1 if the change argues against a match, 1 if for one.

    Yields:
        `auc`, `stands out` (the mean evidence there goes further in the direction of the change than that of the rest
        of the face), `right sign`, `top1` (region of the highest mean), `chance` (of `top1`).
    """
    signed, inside = sign * after.astype(np.float64), changed & regions.face
    candidates = candidate_masks(regions)
    true = changed_regions(candidates, changed)
    here, elsewhere = (float(signed[mask].mean()) for mask in (inside, regions.face & ~changed))
    yield "auc", pixel_auc(smoothed(signed, BLUR), inside, regions.face)
    yield "stands out", float(here > elsewhere)
    yield "right sign", float(here > 0)
    yield "top1", float(most_salient_region(signed, candidates) in true)
    yield "chance", len(true) / len(candidates)


def scores_of_change(
    before: Map, after: Map, changed: Mask, regions: RegionMap, moved: float
) -> Iterator[tuple[str, float]]:
    """Does the change of the map lie where the face was changed?

    Args:
        before: signed map H×W of the unchanged face.
        after: of the changed one.
        changed: H×W.
        regions: of the face before the change.
        moved: change of the score.

    Yields:
        `change auc`, `change top1`, `change inside` (see `share_inside`), `direction` (the change of the evidence
        inside has the sign of the score's).
    """
    signed = np.sign(moved) * (after.astype(np.float64) - before)
    candidates = candidate_masks(regions)
    yield "change auc", pixel_auc(smoothed(signed, BLUR), changed & regions.face, regions.face)
    true = changed_regions(candidates, changed)
    yield "change top1", float(most_salient_region(signed, candidates) in true)
    yield "change inside", share_inside(signed, changed, regions)
    yield "direction", float(signed[changed].sum() > 0)


def share_inside(signed: NDArray[np.float64], changed: Mask, regions: RegionMap) -> float:
    """Change of the evidence where the face was changed, over the sum of its magnitudes by region.

    The changed pixels are one region, and of every named region counts what is left. 1 if all of the change lies
    there, −1 if it has the wrong sign; an even map has the share of the crop's area. NaN without any change.
    """
    outside = np.where(changed, 0.0, signed)
    elsewhere = sum(abs(total) for total in regions.totals(outside).values())
    here = float(signed[changed].sum())
    whole = abs(here) + elsewhere
    return here / whole if whole > 0 else float("nan")


def clean_map(method: str, before: Map) -> Map:
    """What a map is compared with: of a chance baseline, which knows of no change, nothing, so that it is judged."""
    return np.zeros_like(before) if method in CHANCE_BASELINES else before
