"""Seeded draws: the numbers of `torch.manual_seed`, and the global generators as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from xfr_plugin.base.randomness import seeded

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
