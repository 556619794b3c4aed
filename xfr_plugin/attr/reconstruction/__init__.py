"""The paper's two classes, after Xu, Lu and Ebrahimi (MMSP 2023), and the same for Zennit."""

from xfr_plugin.attr.reconstruction.explainer import ReconstructionExplainer
from xfr_plugin.attr.reconstruction.saliency import ReconstructionSaliency

__all__ = ["ReconstructionExplainer", "ReconstructionSaliency"]
