"""What starts quickly: help, version and the package itself import nothing that is slow to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = "captum matplotlib numpy scipy skimage sklearn sympy torch torchvision zennit"

_LISTS = f"""
import sys
{{done}}
print("slow:", *(name for name in "{SLOW}".split() if name in sys.modules))
"""


def slow_imports(code: str) -> list[str]:
    """Slow modules that a new Python has imported after some code."""
    command = [sys.executable, "-c", _LISTS.format(done=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].removeprefix("slow:").split()


def test_the_package_imports_nothing_slow() -> None:
    assert slow_imports("import xfr_plugin") == []


def test_deciding_needs_no_attribution_library() -> None:
    found = slow_imports("from xfr_plugin import compare, explain, verify")
    assert "torch" in found  # such imports are seen
    assert {"captum", "matplotlib", "sklearn", "zennit"}.isdisjoint(found)


def test_the_list_of_methods_imports_no_library_that_single_methods_use() -> None:
    """So that the default explanation does without: Zennit alone, with torchvision, takes as long as torch."""
    found = slow_imports("from xfr_plugin.attr import METHODS; list(METHODS)")
    assert {"sklearn", "torchvision", "zennit"}.isdisjoint(found)


@pytest.mark.parametrize(
    "arguments", ["--version", "--help", "verify --help", "evaluate --help", "train --help"], ids=str
)
def test_help_and_version_import_nothing_slow(arguments: str) -> None:
    run = f"from xfr_plugin.cli.xfr import app; app({arguments.split()}, standalone_mode=False)"
    assert slow_imports(run) == []


def test_a_decision_imports_no_more_of_scipy_than_the_detector_does() -> None:
    """What else would be needed of it, to warp and to find edges, takes a twentieth of the time of the command."""
    found = slow_imports(
        "import warnings, numpy, xfr_plugin; warnings.simplefilter('ignore'); "
        "face = numpy.random.default_rng(0).integers(0, 255, (112, 112, 3), numpy.uint8); "
        "xfr_plugin.verify(face, face, alignment='aligned'); "
        "from xfr_plugin.faces import ARCFACE_TEMPLATE, align; align(face, ARCFACE_TEMPLATE + 3)"
    )
    assert "torch" in found
    assert {"captum", "matplotlib", "scipy", "sklearn", "zennit"}.isdisjoint(found)


@pytest.mark.parametrize("method", ["Xssab", "PairDeepLift"])
def test_a_gradient_imports_no_sympy(method: str) -> None:
    """Torch does, for ten times as long as the method takes, at the first gradient whose cotangents it is given."""
    found = slow_imports(
        f"import numpy, torch, xfr_plugin; from xfr_plugin.attr import {method}; "
        "faces = torch.rand(2, 1, 3, 112, 112); faces[..., :56, :] = 0; "
        "recognizer = xfr_plugin.load_recognizer('xfr_compact128'); "
        f"{method}(recognizer).attribute((faces[0], faces[1]))"
    )
    assert "captum" in found
    assert {"sympy", "torchvision", "zennit"}.isdisjoint(found)
