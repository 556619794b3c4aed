"""Attribution methods for pairs of faces, after Captum's contract; one method a file."""

from xfr_plugin.attr._pair import PairAttribution
from xfr_plugin.attr._perturbation import PerturbationPairAttribution
from xfr_plugin.attr.corrrise import CorrRise, GalleryMaps
from xfr_plugin.attr.evidence import channel_evidence, channel_similarity
from xfr_plugin.attr.fggb import Fggb
from xfr_plugin.attr.mery import MeryAvg, MinPlus
from xfr_plugin.attr.reconstruction_explainer import ReconstructionExplainer
from xfr_plugin.attr.registry import METHODS, Method, get_method
from xfr_plugin.attr.srise import SRise
from xfr_plugin.attr.xface import XFace
from xfr_plugin.attr.xssab import Xssab

__all__ = [
    "METHODS",
    "CorrRise",
    "Fggb",
    "GalleryMaps",
    "MeryAvg",
    "Method",
    "MinPlus",
    "PairAttribution",
    "PerturbationPairAttribution",
    "ReconstructionExplainer",
    "SRise",
    "XFace",
    "Xssab",
    "channel_evidence",
    "channel_similarity",
    "get_method",
]
