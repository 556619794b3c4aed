"""Protocols that tell which explanation can be believed, and the tables that compare them."""

from xfr_plugin.evaluation.floors import average_maps, centre_prior, random_maps
from xfr_plugin.evaluation.judging import evaluate, known_protocols
from xfr_plugin.evaluation.localisation import energy_ratio, most_salient_region, pixel_auc, points_inside
from xfr_plugin.evaluation.pairs import PairEntry, PairList, read_pair_list
from xfr_plugin.evaluation.plan import REGION_PAIRS, PlantedPlan
from xfr_plugin.evaluation.planted import PlantedPairs, PlantedScore, build_pairs, maps_of, score_maps
from xfr_plugin.evaluation.planted_protocol import PlantedEvidence, PlantedPair
from xfr_plugin.evaluation.planting import (
    PLANTED_REGIONS,
    Game,
    Planting,
    plan_plantings,
    read_plantings,
    write_plantings,
)
from xfr_plugin.evaluation.protocol import (
    EvaluationPair,
    MapProtocol,
    Measurement,
    MethodProtocol,
    PairMaps,
    Protocol,
    Setting,
)
from xfr_plugin.evaluation.results import Failure, Record, Results
from xfr_plugin.evaluation.summary import (
    MOVED,
    Interval,
    PlantedSummary,
    SummaryRow,
    bootstrap_mean,
    summarise,
)
from xfr_plugin.faces.blending import Blending, blend_region

__all__ = [
    "MOVED",
    "PLANTED_REGIONS",
    "REGION_PAIRS",
    "Blending",
    "EvaluationPair",
    "Failure",
    "Game",
    "Interval",
    "MapProtocol",
    "Measurement",
    "MethodProtocol",
    "PairEntry",
    "PairList",
    "PairMaps",
    "PlantedEvidence",
    "PlantedPair",
    "PlantedPairs",
    "PlantedPlan",
    "PlantedScore",
    "PlantedSummary",
    "Planting",
    "Protocol",
    "Record",
    "Results",
    "Setting",
    "SummaryRow",
    "average_maps",
    "blend_region",
    "bootstrap_mean",
    "build_pairs",
    "centre_prior",
    "energy_ratio",
    "evaluate",
    "known_protocols",
    "maps_of",
    "most_salient_region",
    "pixel_auc",
    "plan_plantings",
    "points_inside",
    "random_maps",
    "read_pair_list",
    "read_plantings",
    "score_maps",
    "summarise",
    "write_plantings",
]
