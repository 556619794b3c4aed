"""Explain face verification: which regions of two faces argue for a match, which against, and how much.

The photo-to-answer calls are `verify`, `explain` and `compare`; attribution classes for use where Captum
is used are in `xfr_plugin.attr`.
"""

from . import errors
from ._version import __version__
from .base.progress import ProgressBar
from .bulk.api import batch
from .bulk.results import BatchResults
from .errors import FaceWarning, XfrError
from .explanation.api import DEFAULT_RECOGNIZER, explain, verify
from .explanation.comparison import Comparison, MethodResult, compare
from .explanation.explanation import Explanation, FaceExplanation, RegionEvidence
from .explanation.faithfulness import Faithfulness, check_faithfulness
from .explanation.gallery import search
from .explanation.verification import Verification
from .recognition import Recognizer, list_recognizers, load_recognizer

__all__ = [
    "DEFAULT_RECOGNIZER",
    "BatchResults",
    "Comparison",
    "Explanation",
    "FaceExplanation",
    "FaceWarning",
    "Faithfulness",
    "MethodResult",
    "ProgressBar",
    "Recognizer",
    "RegionEvidence",
    "Verification",
    "XfrError",
    "__version__",
    "batch",
    "check_faithfulness",
    "compare",
    "errors",
    "explain",
    "list_recognizers",
    "load_recognizer",
    "search",
    "verify",
]
