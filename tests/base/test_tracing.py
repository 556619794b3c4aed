"""Private tracing: the graph that torch would record, and nothing of torch or of the module touched meanwhile."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from xfr_plugin.base.tracing import PrivateTracer


class Block(nn.Module):
    """Children, a parameter, a buffer and a constant of its own, and a functional sum."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(3, 1, 1))
        self.register_buffer("offset", torch.rand(3, 1, 1))
        self.plain = torch.rand(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.conv(images) * self.scale + self.offset + self.plain
        return x + torch.ones(3, 1, 1)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()
        self.act = nn.ReLU()

    def forward(self, images: Tensor, gain: float = 2.0) -> Tensor:
        x: Tensor = self.second(self.act(self.first(images)))
        return gain * x.flatten(1)


def test_the_graph_is_that_of_torch() -> None:
    network = Network().eval()
    tracer = PrivateTracer()
    graph = tracer.trace(network)
    expected = fx.symbolic_trace(network)
    assert [(node.op, str(node.target)) for node in graph.nodes] == [
        (node.op, str(node.target)) for node in expected.graph.nodes
    ]
    images = torch.rand(2, 3, 5, 4)
    assert isinstance(tracer.root, nn.Module)
    torch.testing.assert_close(fx.GraphModule(tracer.root, graph)(images), network(images), rtol=0, atol=0)


def test_nothing_is_replaced_while_it_runs() -> None:
    network, before = Network(), (nn.Module.__call__, nn.Module.__getattr__)
    seen = []

    class Looking(PrivateTracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            seen.append((nn.Module.__call__, nn.Module.__getattr__))
            assert type(network.first) is Block
            torch.testing.assert_close(nn.Linear(2, 2)(torch.zeros(1, 2)).shape, torch.Size([1, 2]))
            return super().is_leaf_module(m, module_qualified_name)

    attributes = {name: set(part.__dict__) for name, part in network.named_modules()}
    tracer = Looking()
    tracer.trace(network)
    assert set(seen) == {before}
    assert {name: set(part.__dict__) for name, part in network.named_modules()} == attributes
    assert isinstance(tracer.root, nn.Module)
    assert [type(part) for part in tracer.root.modules()] == [type(part) for part in network.modules()]


def test_weights_are_shared() -> None:
    network, tracer = Network(), PrivateTracer()
    tracer.trace(network)
    assert isinstance(tracer.root, nn.Module)
    for own, expected in zip(tracer.root.parameters(), network.parameters(), strict=True):
        assert own is expected
