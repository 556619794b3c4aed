"""A replica computes as in evaluation, with the same weights, and leaves the module as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from xfr_plugin.base.replicas import in_evaluation, replica, state_of


class Odd(nn.Module):
    """Refers to its parts in every way that is not registered, and holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.bn = nn.Dropout(0.5), nn.BatchNorm1d(4)
        self.listed = [self.drop, self.bn]
        self.named = {"parts": (self.bn,)}
        self.method = self._second
        self.lock = threading.Lock()
        self.seen: dict[str, int] = {}
        self.register_buffer("calls", torch.zeros(()))

    def _second(self, x: torch.Tensor) -> torch.Tensor:
        return self.named["parts"][0](self.drop(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            self.calls = self.calls + 1
            self.seen["calls"] = self.seen.get("calls", 0) + 1
            for part in self.listed:
                x = part(x)
            return self.method(x)


def test_every_reference_to_a_part_is_in_evaluation() -> None:
    module = Odd().train()
    x = torch.randn(6, 4)
    expected = x / (1 + 1e-5)
    torch.testing.assert_close(in_evaluation(module)(x), expected)
    assert all(part.training for part in module.modules())
    assert float(module.calls) == 0
    assert module.seen == {"calls": 1}, "plain state is shared"
    torch.testing.assert_close(module.bn.running_mean, torch.zeros(4))


def test_a_module_in_evaluation_is_its_own() -> None:
    module = Odd().eval()
    assert in_evaluation(module) is module
    module.drop.train()
    assert in_evaluation(module) is not module


def test_weights_are_shared_and_hooks_are_not() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    calls: list[str] = []
    module[0].register_forward_hook(lambda *_: calls.append("before"))
    twin = replica(module)
    handle = twin[0].register_forward_hook(lambda *_: calls.append("after"))
    assert twin[0].weight is module[0].weight
    twin(torch.zeros(1, 3))
    assert calls == ["before", "after"]
    module.eval()(torch.zeros(1, 3))
    assert calls == ["before", "after", "before"]
    handle.remove()


def test_a_child_can_have_another_in_its_place() -> None:
    module, other = nn.Sequential(nn.Linear(3, 3), nn.Dropout()), nn.Linear(3, 3)
    twin = replica(module, **{"0": other})
    assert twin[0] is other
    assert twin[1] is not module[1]
    assert module[0] is not other


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["weight norm", "parametrised", "script", "graph"])
def test_modules_of_torch(kind: str) -> None:
    torch.manual_seed(0)
    module: nn.Module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9))
    if kind == "weight norm":
        nn.utils.parametrizations.weight_norm(module[0])
    elif kind == "parametrised":
        nn.utils.parametrizations.spectral_norm(module[0])
    elif kind == "script":
        module = nn.Sequential(torch.jit.trace(module.eval(), torch.zeros(2, 3)), nn.Dropout(0.9))
    else:
        module = torch.fx.symbolic_trace(module)
    x = torch.randn(2, 3)
    with torch.no_grad():
        expected = module.eval()(x)
        torch.testing.assert_close(in_evaluation(module.train())(x), expected)
    assert module.training


def test_the_state_of_a_module_is_noticed_to_change_whatever_changes_it() -> None:
    def changed(change: Callable[[nn.Sequential], object]) -> bool:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
        module(torch.rand(1, 3, 8, 8))
        before = state_of(module)
        assert state_of(module) == before
        change(module)
        return state_of(module) != before

    assert not changed(lambda module: module(torch.rand(1, 3, 8, 8)))
    assert changed(lambda module: module.train())
    assert changed(lambda module: module[0].weight.data.copy_(module[0].weight.data.flip(0)))
    assert changed(lambda module: nn.init.ones_(module[1].weight.detach().mul_(2)))
    assert changed(lambda module: setattr(module[0], "weight", nn.Parameter(torch.rand(4, 3, 3, 3))))
    assert changed(lambda module: setattr(module[0], "stride", (2, 2)))
    assert changed(lambda module: module.append(nn.ReLU()))
    assert changed(lambda module: module[2].register_forward_hook(lambda *_: None))
    assert changed(lambda module: setattr(module[1], "eps", 0.1))
    assert changed(lambda module: module[1].weight.data[:1].add_(1e-4))
    assert changed(lambda module: module[1].running_var.data.copy_(torch.tensor([1e5, 1, 1, 1])))
    assert changed(lambda module: setattr(module, "listed", [module[0]]))


def test_the_state_of_large_weights_is_noticed_to_change_whichever_value_changes() -> None:
    module = nn.Linear(300, 500)
    for place in ((0, 0), (123, 45), (499, 299)):
        before = state_of(module)
        module.weight.data[place] += 0.01
        assert state_of(module) != before
    before = state_of(module)
    module.weight.data.copy_(module.weight.data.flip(0))
    assert state_of(module) != before
