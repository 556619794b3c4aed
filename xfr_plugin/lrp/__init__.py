"""Layer-wise relevance propagation for face networks: what Zennit lacks for them.

Importing this package imports Zennit and registers our composites with it; nothing else of `xfr_plugin` does.
"""

from xfr_plugin.lrp.attention import AttentionCanonizer
from xfr_plugin.lrp.canonizers import FaceCanonizer
from xfr_plugin.lrp.composites import (
    AttentionFace,
    EpsilonGammaBoxFace,
    EpsilonPlusFlatFace,
    ExcitationBackpropFace,
)
from xfr_plugin.lrp.coverage import ModuleRule, coverage
from xfr_plugin.lrp.layers import Cosine
from xfr_plugin.lrp.rules import AffineRule, PReLURule, SignedPlus, SumPlus, Unchanged, WinnerTakesAll

__all__ = [
    "AffineRule",
    "AttentionCanonizer",
    "AttentionFace",
    "Cosine",
    "EpsilonGammaBoxFace",
    "EpsilonPlusFlatFace",
    "ExcitationBackpropFace",
    "FaceCanonizer",
    "ModuleRule",
    "PReLURule",
    "SignedPlus",
    "SumPlus",
    "Unchanged",
    "WinnerTakesAll",
    "coverage",
]
