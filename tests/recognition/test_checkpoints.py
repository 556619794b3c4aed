"""Weights that others saved: as a part of larger modules, in wrappers, with heads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from xfr_plugin.errors import LayoutError, WeightsError
from xfr_plugin.recognition import build_network, load_recognizer
from xfr_plugin.recognition.networks import CompactFaceNet

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return dict(build_network("faceid").state_dict())


def under(beginning: str, state: State) -> State:
    return {beginning + key: value for key, value in state.items()}


BEGINNINGS = [
    "backbone.",
    "model.",
    "module.",
    "_orig_mod.",
    "encoder.",
    "module._orig_mod.",
    "a.b.c.",
    "student.net.",
]
WRAPPERS: dict[str, Callable[[State], Any]] = {
    "lightning": lambda s: {"state_dict": under("model.", s), "epoch": 3, "optimizer_states": [{"lr": 0.1}]},
    "model beside others": lambda s: {"model": s, "optimizer": {"state": {}, "step": torch.zeros(1)}},
    "the only one": lambda s: {"ema_weights": s, "step": 4},
    "two deep": lambda s: {"checkpoint": {"net": s, "epoch": 1}},
    "ordered": lambda s: OrderedDict(params=OrderedDict(s)),
    "backbone and head": lambda s: {"backbone": s, "head": {"weight": torch.zeros(9, 4)}},
}


def check(path: Path, state: State) -> None:
    found = load_recognizer(path).network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_any_beginning_of_keys(beginning: str, suffix: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    content = under(beginning, state)
    if not beginning.startswith(("module.", "_orig_mod.")):  # these wrap everything
        content |= {"head.weight": torch.zeros(10, 4), "loss.centres": torch.zeros(3)}
    (torch.save if suffix == ".pt" else save_file)(content, path)
    check(path, state)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_any_wrapper(kind: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WRAPPERS[kind](state), path)
    check(path, state)


@pytest.mark.parametrize("head", ["head.weight", "fc_out.bias", "arcface.kernel"])
@pytest.mark.parametrize("architecture", [None, "faceid"])
def test_a_head_too_many_is_named(head: str, architecture: str | None, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state | {head: torch.zeros(7)}, path)
    with pytest.raises(LayoutError, match=rf"1 keys unknown \(e\.g\. {head}\)") as caught:
        load_recognizer(path, architecture=architecture)
    assert architecture or "the nearest is faceid" in str(caught.value)


def test_a_missing_layer_names_the_nearest(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    key = sorted(state)[0]
    torch.save(under("backbone.", {name: value for name, value in state.items() if name != key}), path)
    with pytest.raises(LayoutError, match=rf"the nearest is faceid: .*1 keys missing \(e\.g\. {key}\)"):
        load_recognizer(path)


def test_two_networks_in_one_file_are_not_chosen_between(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    compact = dict(CompactFaceNet().state_dict())
    for other in (state, compact):
        torch.save(under("student.", state) | under("teacher.", other), path)
        with pytest.raises(LayoutError, match=r"several networks \(student\., teacher\.\)"):
            load_recognizer(path)


@pytest.mark.parametrize(
    "content", [{}, {"a": {"x": torch.zeros(1)}, "b": {"x": torch.zeros(1)}}, {"epoch": 3}, torch.zeros(3)]
)
def test_checkpoints_without_a_state_dict(content: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        load_recognizer(path)
