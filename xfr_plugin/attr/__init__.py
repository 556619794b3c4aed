"""Attribution methods for pairs of faces, after Captum's contract; one method a file."""

from xfr_plugin.attr._base.pair import PairAttribution
from xfr_plugin.attr._base.perturbation import PerturbationPairAttribution
from xfr_plugin.attr.amortised.attribution import Amortised, AmortisedAnswer
from xfr_plugin.attr.amortised.model import EvidenceModel, find_evidence, load_evidence
from xfr_plugin.attr.cosine_head import CosineHead
from xfr_plugin.attr.counterfactual.attribution import Counterfactual, RegionalAnswer
from xfr_plugin.attr.counterfactual.exchange import Exchange
from xfr_plugin.attr.counterfactual.replacement import Replacement
from xfr_plugin.attr.peers.captum_methods import (
    PairDeepLift,
    PairInputXGradient,
    PairIntegratedGradients,
    PairSmoothGrad,
)
from xfr_plugin.attr.peers.captum_perturbation import PairKernelShap, PairLime, PairOcclusion
from xfr_plugin.attr.peers.corrrise import CorrRise, GalleryMaps
from xfr_plugin.attr.peers.ebp import Ebp
from xfr_plugin.attr.peers.fame import Fame
from xfr_plugin.attr.peers.fggb import Fggb
from xfr_plugin.attr.peers.gradcam import GradCam, GradCamPlusPlus, ScoreCam
from xfr_plugin.attr.peers.mery import MeryAvg, MinPlus
from xfr_plugin.attr.peers.relevance import ChannelRelevanceSaliency, LrpSaliency
from xfr_plugin.attr.peers.srise import SRise
from xfr_plugin.attr.peers.xface import XFace
from xfr_plugin.attr.peers.xssab import Xssab
from xfr_plugin.attr.reconstruction.explainer import ReconstructionExplainer
from xfr_plugin.attr.reconstruction.saliency import ReconstructionSaliency
from xfr_plugin.attr.registry import METHODS, Method, default_method, fast_method, get_method
from xfr_plugin.channels.evidence import channel_evidence, channel_similarity

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
