"""Attribution methods for pairs of faces, after Captum's contract; one method a file."""

from xfr_plugin.attr._pair import PairAttribution
from xfr_plugin.attr._perturbation import PerturbationPairAttribution
from xfr_plugin.attr.amortised import Amortised, AmortisedAnswer
from xfr_plugin.attr.captum_methods import (
    PairDeepLift,
    PairInputXGradient,
    PairIntegratedGradients,
    PairSmoothGrad,
)
from xfr_plugin.attr.captum_perturbation import PairKernelShap, PairLime, PairOcclusion
from xfr_plugin.attr.corrrise import CorrRise, GalleryMaps
from xfr_plugin.attr.cosine_head import CosineHead
from xfr_plugin.attr.counterfactual import Counterfactual, RegionalAnswer
from xfr_plugin.attr.ebp import Ebp
from xfr_plugin.attr.evidence import channel_evidence, channel_similarity
from xfr_plugin.attr.evidence_model import EvidenceModel, find_evidence, load_evidence
from xfr_plugin.attr.exchange import Exchange
from xfr_plugin.attr.fame import Fame
from xfr_plugin.attr.fggb import Fggb
from xfr_plugin.attr.gradcam import GradCam, GradCamPlusPlus, ScoreCam
from xfr_plugin.attr.mery import MeryAvg, MinPlus
from xfr_plugin.attr.reconstruction import ReconstructionSaliency
from xfr_plugin.attr.reconstruction_explainer import ReconstructionExplainer
from xfr_plugin.attr.registry import METHODS, Method, default_method, fast_method, get_method
from xfr_plugin.attr.relevance import ChannelRelevanceSaliency, LrpSaliency
from xfr_plugin.attr.replacement import Replacement
from xfr_plugin.attr.srise import SRise
from xfr_plugin.attr.xface import XFace
from xfr_plugin.attr.xssab import Xssab

__all__ = [
    "METHODS",
    "Amortised",
    "AmortisedAnswer",
    "ChannelRelevanceSaliency",
    "CorrRise",
    "CosineHead",
    "Counterfactual",
    "Ebp",
    "EvidenceModel",
    "Exchange",
    "Fame",
    "Fggb",
    "GalleryMaps",
    "GradCam",
    "GradCamPlusPlus",
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
    "PairSmoothGrad",
    "PerturbationPairAttribution",
    "ReconstructionExplainer",
    "ReconstructionSaliency",
    "RegionalAnswer",
    "Replacement",
    "SRise",
    "ScoreCam",
    "XFace",
    "Xssab",
    "channel_evidence",
    "channel_similarity",
    "default_method",
    "fast_method",
    "find_evidence",
    "get_method",
    "load_evidence",
]
