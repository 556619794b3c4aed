"""Seeded draws: the numbers of `torch.manual_seed`, and the global generators as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from skimage import data
from torch import Tensor, nn
from torch.distributions import Categorical

from xfr_plugin.base.randomness import seeded
from xfr_plugin.base.weights import MODELS
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.faces import prepare_face
from xfr_plugin.faces.landmarks import load_aligner
from xfr_plugin.recognition import list_recognizers, load_recognizer
from xfr_plugin.reconstruction import find_decoder

DRAWS: dict[str, Callable[[], Tensor]] = {
    "randn": lambda: torch.randn(40),
    "randint": lambda: torch.randint(9, (40,)),
    "randperm": lambda: torch.randperm(40),
    "normal": lambda: torch.normal(0, torch.full((40,), 2.0)),
    "bernoulli": lambda: torch.bernoulli(torch.full((40,), 0.5)),
    "in place": lambda: torch.empty(40).uniform_().log().exponential_(),
    "distribution": lambda: Categorical(torch.rand(5)).sample((3,)),
    "network": lambda: torch.cat([p.flatten() for p in nn.TransformerEncoderLayer(4, 2, 8).parameters()]),
    "initialised": lambda: nn.init.trunc_normal_(nn.init.orthogonal_(torch.empty(4, 4)) + torch.rand(4, 4)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_numbers_are_those_of_the_seed(draw: Callable[[], Tensor]) -> None:
    torch.manual_seed(7)
    expected = [draw(), draw()]
    before = torch.random.get_rng_state()
    with seeded(7):
        found = [draw(), draw()]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_generator_that_is_given_is_used() -> None:
    with seeded(1):
        found = torch.rand(3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(found, torch.rand(3, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("name", list_recognizers())
def test_what_is_loaded_draws_nothing_that_others_would_have_drawn(name: str) -> None:
    """Networks are born with random weights; a seed gives the same numbers whether one is loaded or not."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with contextlib.suppress(WeightsError, InputError):  # neither is everywhere
        find_decoder(load_recognizer(name))
    assert torch.equal(torch.get_rng_state(), before)


def test_nor_does_what_finds_faces() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    load_aligner(MODELS / "aligner.safetensors")
    prepare_face(data.astronaut())
    assert torch.equal(torch.get_rng_state(), before)
