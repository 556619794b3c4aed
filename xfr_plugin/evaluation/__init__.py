"""Protocols that tell which explanation can be believed, and the tables that compare them."""

from xfr_plugin.evaluation.judging import evaluate, known_protocols
from xfr_plugin.evaluation.localisation import energy_ratio, most_salient_region, pixel_auc, points_inside
from xfr_plugin.evaluation.pairs import PairEntry, PairList, read_pair_list
from xfr_plugin.evaluation.plan import REGION_PAIRS, PlantedPlan
from xfr_plugin.evaluation.protocol import (
    EvaluationPair,
    MapProtocol,
    Measurement,
    MethodProtocol,
    PairMaps,
    Protocol,
    Setting,
)
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedEvidence, PlantedPair
from xfr_plugin.evaluation.results import Failure, Record, Results
from xfr_plugin.evaluation.summary import SummaryRow
from xfr_plugin.swaps.blending import Blending, blend_region
from xfr_plugin.swaps.planting import (
    MIN_SCORE_CHANGE,
    PLANTED_REGIONS,
    Game,
    Planting,
    plan_plantings,
    read_plantings,
    write_plantings,
)

__all__ = [
    "MIN_SCORE_CHANGE",
    "PLANTED_REGIONS",
    "REGION_PAIRS",
    "Blending",
    "EvaluationPair",
    "Failure",
    "Game",
    "MapProtocol",
    "Measurement",
    "MethodProtocol",
    "PairEntry",
    "PairList",
    "PairMaps",
    "PlantedEvidence",
    "PlantedPair",
    "PlantedPlan",
    "Planting",
    "Protocol",
    "Record",
    "Results",
    "Setting",
    "SummaryRow",
    "blend_region",
    "energy_ratio",
    "evaluate",
    "known_protocols",
    "most_salient_region",
    "pixel_auc",
    "plan_plantings",
    "points_inside",
    "read_pair_list",
    "read_plantings",
    "write_plantings",
]
