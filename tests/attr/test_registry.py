"""A method is its file and its test: all else reads what it says about itself; here for docs/contributing.md's.

Files touched by a new method: 2 (its file, its test); there were 9.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.captum_checks import CHECKS, outcome, subjects
from helpers.contributed import contributed
from helpers.evaluation_faces import judge, write_faces
from helpers.examples import run_example
from helpers.serving_faces import crops
from numpy.typing import NDArray
from typer.testing import CliRunner

import xfr_plugin
from xfr_plugin import attr
from xfr_plugin.attr import METHODS, Method, PairAttribution
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr.registry import default_method, fast_method
from xfr_plugin.base.registry import Registry
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.service import Deployment, ExplanationService, parse_request
from xfr_plugin.service.costs import CostBook

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

NAME = "score_gradient"


@pytest.fixture
def method(tmp_path: Path) -> Iterator[Method]:
    with contributed("ScoreGradient", "xfr_plugin.attr.peers", METHODS, tmp_path):
        yield METHODS[NAME]
    assert NAME not in METHODS


@pytest.fixture
def photos(face_photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return face_photo, np.ascontiguousarray(face_photo[:, ::-1])


def test_it_explains(
    method: Method, recognizer: Recognizer, photos: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    explanation = xfr_plugin.explain(*photos, recognizer=recognizer, method=NAME, alignment="aligned")
    assert explanation.method == NAME
    assert explanation.options == {"absolute": False}
    assert any(method.caveat in note for note in explanation.notes)
    assert np.abs(explanation.probe.saliency).sum() > 0


def test_its_maps_are_the_gradient(
    method: Method, recognizer: Recognizer, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    maps = method.build(recognizer, 0.2).attribute(pair)
    leaf = pair[0].clone().requires_grad_()
    (recognizer(leaf) * recognizer(pair[1]).detach()).sum().backward()
    torch.testing.assert_close(maps[0], leaf.grad)


def test_its_class_can_be_imported_as_those_of_others(method: Method) -> None:
    assert attr.ScoreGradient is method.cls
    assert "ScoreGradient" in attr.__all__
    assert "ScoreGradient" in dir(attr)


@pytest.mark.usefixtures("method")
def test_it_is_compared(recognizer: Recognizer, photos: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    compared = xfr_plugin.compare(
        *photos, methods=("xssab", NAME), recognizer=recognizer, alignment="aligned"
    )
    assert compared.results[1].explanation is not None
    assert compared.agreement.methods == ("xssab", NAME)


@pytest.mark.usefixtures("method")
def test_it_is_evaluated(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces")
    results = judge(tmp_path / "faces", tmp_path / "out", methods=(NAME,), protocols=("deletion",), limit=4)
    assert {record.method for record in results.records} >= {NAME}


def test_it_is_listed(method: Method) -> None:
    told = CliRunner().invoke(app, ["methods", "--json"])
    card = next(card for card in json.loads(told.output) if card["name"] == NAME)
    assert (card["title"], card["needs"], card["cost"]) == (method.title, method.needs, method.cost)
    assert NAME in CliRunner().invoke(app, ["methods"]).output


def test_the_service_allows_and_prices_it(method: Method) -> None:
    assert NAME in Deployment().methods, "it is quick"
    assert CostBook(0.01).estimate(NAME) == pytest.approx(0.01 * method.relative_cost)
    service = ExplanationService(Deployment(methods="all"))
    asked = {"probe": crops(2)[0], "reference": crops(2)[1], "method": NAME, "alignment": "aligned"}
    answer = service.answer(parse_request(asked), explain=True)
    assert answer.explanation is not None
    assert answer.explanation.method == NAME


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("check", CHECKS)
def test_it_conforms(check: str) -> None:
    passed, why = outcome(subjects()[NAME], CHECKS[check])
    assert passed is not False, why


def test_its_example_runs(method: Method) -> None:
    run_example(method)


def test_our_methods_come_first_then_the_newest_of_others() -> None:
    ours = [name for name, method in METHODS.items() if ".peers." not in method.cls.__module__]
    assert list(METHODS)[: len(ours)] == ours
    assert ours == [
        "amortised",
        "leave_one_out",
        "shapley",
        "reconstruction",
    ]
    years = [method.year for method in METHODS.values()][len(ours) :]
    assert years == sorted(years, reverse=True)


def test_a_name_is_given_once() -> None:
    again = attribution_method(
        name="xssab", title="", paper="", year=0, needs="scores", cost="", relative_cost=1, caveat=""
    )
    with METHODS.restored(), pytest.raises(InputError, match=r"'xssab' is in .*xssab and again in"):
        again(type("Again", (PairAttribution,), {}))


def test_what_stands_in_is_the_first_of_the_preferred_that_can(recognizer: Recognizer) -> None:
    """Leaving out needs nothing but scores; the quick ones need a decoder, or nothing but the network."""
    assert default_method(recognizer) == "leave_one_out"
    assert fast_method(recognizer) == "xssab"
    shipped = xfr_plugin.load_recognizer("xfr_compact128")
    assert default_method(shipped) == "leave_one_out"
    assert fast_method(shipped) == "reconstruction"


def test_nothing_is_imported_before_a_registry_is_read() -> None:
    unread: Registry[Method] = Registry("method", "no.such.package")
    names = unread.names(lambda method: method.quick)
    with pytest.raises(ModuleNotFoundError):
        len(names)


def test_the_registry_loads_without_what_its_methods_need() -> None:
    """So that the command line can name the default without waiting for Captum."""
    script = "import sys, xfr_plugin.attr.registry; print({'torch', 'captum', 'zennit'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
