"""Explain face verification: which regions of two faces argue for a match, which against, and how much.

The photo-to-answer calls are `verify`, `explain` and `compare`; attribution classes for use where Captum
is used are in `xfr_plugin.attr`.
"""

from xfr_plugin import errors
from xfr_plugin._version import __version__
from xfr_plugin.api import DEFAULT_RECOGNIZER, explain, verify
from xfr_plugin.comparison import Comparison, MethodResult, compare
from xfr_plugin.errors import FaceWarning, XfrError
from xfr_plugin.explanation import Explanation, FaceExplanation, RegionEvidence
from xfr_plugin.faithfulness import Faithfulness, check_faithfulness
from xfr_plugin.recognition import Recognizer, list_recognizers, load_recognizer
from xfr_plugin.verification import Verification

__all__ = [
    "DEFAULT_RECOGNIZER",
    "Comparison",
    "Explanation",
    "FaceExplanation",
    "FaceWarning",
    "Faithfulness",
    "MethodResult",
    "Recognizer",
    "RegionEvidence",
    "Verification",
    "XfrError",
    "__version__",
    "check_faithfulness",
    "compare",
    "errors",
    "explain",
    "list_recognizers",
    "load_recognizer",
    "verify",
]
