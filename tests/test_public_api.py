"""The public API is what we promise: a name that vanishes or appears by accident fails here."""

from __future__ import annotations

import importlib
import inspect

import pytest

import xfr_plugin
from xfr_plugin import attr, errors

MODULES = [
    "asgi",
    "attr",
    "bulk",
    "channels",
    "evaluation",
    "faces",
    "lrp",
    "recognition",
    "reconstruction",
    "service",
    "torchserve",
    "training",
]


def test_top_level_names() -> None:
    assert set(xfr_plugin.__all__) == {
        "BatchResults",
        "Comparison",
        "DEFAULT_RECOGNIZER",
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
    }


@pytest.mark.parametrize("name", ["", *(f".{module}" for module in MODULES)])
def test_every_exported_name_exists(name: str) -> None:
    module = importlib.import_module(f"xfr_plugin{name}")
    for exported in getattr(module, "__all__", []):
        assert hasattr(module, exported)


def test_the_class_of_every_method_can_be_imported() -> None:
    """As Captum's are: `from xfr_plugin.attr import …`."""
    assert {method.cls.__name__ for method in attr.METHODS.values()} <= set(attr.__all__)


def test_every_error_is_one_of_ours() -> None:
    for name in errors.__all__:
        cls = getattr(errors, name)
        assert issubclass(cls, (errors.XfrError, UserWarning))
        assert inspect.getdoc(cls)


def test_unknown_names_suggest_the_nearest() -> None:
    message = str(errors.UnknownNameError.of("method", "fgbb", ["fggb", "xssab"]))
    assert "did you mean 'fggb'" in message
    assert "xssab" in message
