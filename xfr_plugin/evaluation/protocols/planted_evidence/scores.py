"""The planted-evidence protocol: build the planted pairs, let a method explain them, score its maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.prepared import pixel_maps
from xfr_plugin.base.documents import Document
from xfr_plugin.base.statistics import smoothed
from xfr_plugin.evaluation.localisation import energy_ratio, most_salient_region, pixel_auc, points_inside
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.planted_pairs import PlantedPairs, as_floats
from xfr_plugin.swaps.planting import PLANTED_REGIONS, Planting, effect_of, named_regions

__all__ = ["BLUR", "MapMaker", "PlantedScore", "blurred_saliency", "candidate_masks", "maps_of", "score_maps"]

MapMaker: TypeAlias = Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]
"""From (probes, references), N×3×H×W each, to their signed maps: the `attribute` of a pair attribution."""

BLUR = 5 / 112
"""Maps are blurred before they are scored, so that grain and patch size do not decide: σ as a share of the height."""


class PlantedScore(Document):
    """How one map of one planted pair did.

    Attributes:
        method: which method made the map.
        index: place of the planting in its manifest.
        game: of the planting.
        region: of the planting.
        control: of the planting.
        side: whose map was scored: the probe's, into which the region was planted, or the reference's.
        clean: score of the pair before the planting (cosine).
        planted: score after it.
        auc: see `localisation.pixel_auc`.
        chosen: the region with the highest mean saliency.
        hit: it is (one of) the planted.
        energy: see `localisation.energy_ratio`.
        pointing: see `localisation.points_inside`.
    """

    method: str
    index: int
    game: str
    region: str
    control: bool
    side: Literal["probe", "reference"]
    clean: float
    planted: float
    auc: float
    chosen: str
    hit: bool
    energy: float
    pointing: bool

    @property
    def moved(self) -> float:
        """How far the planting moved the pair's score in the direction of its game."""
        return effect_of(self.game, self.planted - self.clean)


def maps_of(
    make_maps: MapMaker, pairs: PlantedPairs, recognizer: Recognizer, batch_size: int = 8
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed pixel maps N×H×W of all probes and of all references (sums over colours)."""
    sides: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    for chunk in pairs.chunks(batch_size):
        images = tuple(as_floats(x[chunk]).to(recognizer.device) for x in (pairs.probes, pairs.references))
        for side, maps in zip(sides, make_maps((images[0], images[1])), strict=True):
            side.append(pixel_maps(maps))
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def score_maps(
    method: str,
    maps: NDArray[np.float32],
    pairs: PlantedPairs,
    side: Literal["probe", "reference"] = "probe",
    blur: float = BLUR,
) -> list[PlantedScore]:
    """Score the maps N×H×W of one side of all pairs: the similar game by the map, the dissimilar by its negative."""
    regions = pairs.probe_regions if side == "probe" else pairs.reference_regions
    return [
        _score(method, values, pairs, index, side, labels, blur)
        for index, (values, labels) in enumerate(zip(maps, regions, strict=True))
    ]


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


def _score(
    method: str,
    values: NDArray[np.float32],
    pairs: PlantedPairs,
    index: int,
    side: Literal["probe", "reference"],
    labels: RegionMap,
    blur: float,
) -> PlantedScore:
    planting = pairs.plantings[index]
    saliency = blurred_saliency(values, planting, blur)
    truth, face = labels.mask(*named_regions(planting.region)), labels.face
    chosen = most_salient_region(saliency, candidate_masks(labels))
    return PlantedScore(
        method=method,
        index=index,
        game=planting.game,
        region=planting.region,
        control=planting.control,
        side=side,
        clean=float(pairs.clean[index]),
        planted=float(pairs.planted[index]),
        auc=pixel_auc(saliency, truth, face),
        chosen=chosen,
        hit=chosen in planting.region.split("+"),
        energy=energy_ratio(saliency, truth, face),
        pointing=points_inside(saliency, truth, face),
    )
