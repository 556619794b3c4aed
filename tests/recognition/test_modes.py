"""In whatever mode a network is left, faces are embedded as in evaluation, and nothing of it changes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.recognition import Recognizer, build_network

SIZE = (16, 16)


def convolutional(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.Flatten(), nn.Linear(8 * 14 * 14, 5))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: convolutional(nn.BatchNorm2d(8), nn.ReLU()),
    "channel dropout": lambda: convolutional(nn.Dropout2d(0.5)),
    "alpha dropout": lambda: convolutional(nn.AlphaDropout(0.5)),
    "random slopes": lambda: convolutional(nn.RReLU()),
    "instance norm": lambda: convolutional(nn.InstanceNorm2d(8, track_running_stats=True)),
    "spectral norm": lambda: convolutional(nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]()


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("entry", ["embed", "forward", "features"])
def test_a_network_in_training_mode_embeds_as_in_evaluation(network: nn.Module, entry: str) -> None:
    recognizer = Recognizer(network, input_size=SIZE, threshold=0.9)
    images = torch.rand(3, 3, *SIZE)
    with torch.no_grad():
        expected = getattr(recognizer, entry)(images)
        network.train()
        before, modes = state(network), [part.training for part in network.modules()]
        for _ in range(2):
            torch.testing.assert_close(getattr(recognizer, entry)(images), expected)
    assert [part.training for part in network.modules()] == modes
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_one_part_in_training_mode_is_enough(network: nn.Module) -> None:
    recognizer = Recognizer(network, input_size=SIZE)
    images = torch.rand(3, 3, *SIZE)
    expected = recognizer.embed(images)
    network[1].train()
    torch.testing.assert_close(recognizer.embed(images), expected)
    assert network[1].training
    assert not network.training


def test_gradients_pass(network: nn.Module) -> None:
    recognizer = Recognizer(network, input_size=SIZE)
    images = torch.rand(2, 3, *SIZE, requires_grad=True)
    (expected,) = torch.autograd.grad(recognizer(images)[:, 0].sum(), images)
    network.train()
    recognizer(images)[:, 0].sum().backward()
    torch.testing.assert_close(images.grad, expected)
    assert network[0].weight.grad is not None, "weights are shared"


def test_many_threads_and_a_network_in_training_mode() -> None:
    torch.manual_seed(0)
    network = NETWORKS["batch norm"]()
    recognizer = Recognizer(network, input_size=SIZE)
    images = torch.rand(3, 3, *SIZE)
    expected = recognizer.embed(images)
    network.train()
    before, found = state(network), []

    def work() -> None:
        found.extend(recognizer.embed(images) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    for embedded in found:
        torch.testing.assert_close(embedded, expected)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("name", ["compact", "iresnet18"])
def test_our_architectures(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name)
    recognizer = Recognizer(network)
    images = torch.rand(2, 3, 112, 112)
    expected = recognizer.embed(images)
    network.train()
    torch.testing.assert_close(recognizer.embed(images), expected)
    folded = recognizer.with_network(network)
    assert network.training, "a copy of the recognizer leaves the mode, too"
    torch.testing.assert_close(folded.embed(images), expected)
