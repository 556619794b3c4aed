"""Protocols that tell which explanation can be believed, and the tables that compare them."""

from xfr_plugin.evaluation.floors import average_maps, centre_prior, random_maps
from xfr_plugin.evaluation.localisation import energy_ratio, most_salient_region, pixel_auc, points_inside
from xfr_plugin.evaluation.planted import PlantedPairs, PlantedScore, build_pairs, maps_of, score_maps
from xfr_plugin.evaluation.planting import (
    PLANTED_REGIONS,
    Game,
    Planting,
    plan_plantings,
    read_plantings,
    write_plantings,
)
from xfr_plugin.evaluation.summary import MOVED, Interval, PlantedSummary, bootstrap_mean, summarise
from xfr_plugin.faces.blending import Blending, blend_region

__all__ = [
    "MOVED",
    "PLANTED_REGIONS",
    "Blending",
    "Game",
    "Interval",
    "PlantedPairs",
    "PlantedScore",
    "PlantedSummary",
    "Planting",
    "average_maps",
    "blend_region",
    "bootstrap_mean",
    "build_pairs",
    "centre_prior",
    "energy_ratio",
    "maps_of",
    "most_salient_region",
    "pixel_auc",
    "plan_plantings",
    "points_inside",
    "random_maps",
    "read_plantings",
    "score_maps",
    "summarise",
    "write_plantings",
]
