"""The paper's two classes, and the same for Zennit; for type checkers, see `__init__.py`."""

from ._zennit_attributors import ReconstructionAttributor, SaliencyAttributor
from .explainer import ReconstructionExplainer
from .saliency import ReconstructionSaliency

__all__ = [
    "ReconstructionAttributor",
    "ReconstructionExplainer",
    "ReconstructionSaliency",
    "SaliencyAttributor",
]
