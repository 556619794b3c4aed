"""Attribution methods for pairs of faces, after Captum's contract; for type checkers, see `__init__.py`."""

from ._base.evidence import channel_evidence, channel_similarity
from ._base.pair import PairAttribution
from ._base.perturbation import PerturbationPairAttribution
from ._base.regional import RegionalAnswer
from .amortised.attribution import Amortised
from .amortised.model import EvidenceModel, find_evidence, load_evidence
from .cosine_head import CosineHead
from .intervention.effects import FaceEffects, interactions, region_effects
from .intervention.leave_one_out import LeaveOneOut
from .intervention.level import measure_shares
from .intervention.shapley import PairShapley, ShapleyInteractions
from .peers.captum_methods import (
    PairDeepLift,
    PairInputXGradient,
    PairIntegratedGradients,
    PairSmoothGrad,
)
from .peers.captum_perturbation import PairKernelShap, PairLime, PairOcclusion
from .peers.corrrise import CorrRise, GalleryMaps
from .peers.ebp import Ebp
from .peers.fame import Fame
from .peers.fggb import Fggb
from .peers.gradcam import GradCam, GradCamPlusPlus, ScoreCam
from .peers.mery import MeryAvg, MinPlus
from .peers.relevance import ChannelRelevanceSaliency, LrpSaliency
from .peers.srise import SRise
from .peers.xface import XFace
from .peers.xssab import Xssab
from .reconstruction.explainer import ReconstructionExplainer
from .reconstruction.saliency import ReconstructionSaliency
from .registry import METHODS, Method, default_method, fast_method, get_method

__all__ = [
    "METHODS",
    "Amortised",
    "ChannelRelevanceSaliency",
    "CorrRise",
    "CosineHead",
    "Ebp",
    "EvidenceModel",
    "FaceEffects",
    "Fame",
    "Fggb",
    "GalleryMaps",
    "GradCam",
    "GradCamPlusPlus",
    "LeaveOneOut",
    "LrpSaliency",
    "MeryAvg",
    "Method",
    "MinPlus",
    "PairAttribution",
    "PairDeepLift",
    "PairInputXGradient",
    "PairIntegratedGradients",
    "PairKernelShap",
    "PairLime",
    "PairOcclusion",
    "PairShapley",
    "PairSmoothGrad",
    "PerturbationPairAttribution",
    "ReconstructionExplainer",
    "ReconstructionSaliency",
    "RegionalAnswer",
    "SRise",
    "ScoreCam",
    "ShapleyInteractions",
    "XFace",
    "Xssab",
    "channel_evidence",
    "channel_similarity",
    "default_method",
    "fast_method",
    "find_evidence",
    "get_method",
    "interactions",
    "load_evidence",
    "measure_shares",
    "region_effects",
]
