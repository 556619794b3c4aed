"""Vectorised backward passes equal one at a time, and folding BatchNorm changes nothing but the time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.architectures import KINDS
from torch import nn

from xfr_plugin.base.captum import Saliency
from xfr_plugin.channels.all_channels import attribute_all_channels
from xfr_plugin.channels.pullback import one_hot_cotangents, pull_back
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.folding import fold_batchnorm, folded_recognizer, safely_folded

Images = tuple[torch.Tensor, torch.Tensor]


def plain_gradients(recognizer: Recognizer, images: torch.Tensor) -> torch.Tensor:
    """One forward and one backward pass for each channel of each image."""
    rows = []
    for k in range(6):
        per_image = []
        for image in images:
            leaf = image[None].clone().requires_grad_()
            recognizer.features(leaf)[0, k].backward()
            assert leaf.grad is not None
            per_image.append(leaf.grad[0])
        rows.append(torch.stack(per_image))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 100])
def test_all_channels_equal_the_plain_loop(recognizer: Recognizer, pair: Images, chunk_size: int) -> None:
    expected = plain_gradients(recognizer, pair[0])
    with torch.no_grad():
        embedding, pullback = pull_back(recognizer.features, pair[0], chunk_size)
        found = pullback(one_hot_cotangents(range(6), embedding))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(embedding, recognizer.features(pair[0]).detach())


def test_inputs_and_parameters_are_left_alone(recognizer: Recognizer, pair: Images) -> None:
    probe = pair[0].clone()
    embedding, pullback = pull_back(recognizer.features, probe, 4)
    pullback(torch.ones(1, *embedding.shape, dtype=torch.float64))
    assert not probe.requires_grad
    assert all(parameter.grad is None for parameter in recognizer.parameters())


def test_functions_that_cannot_be_vectorised_are_looped(pair: Images) -> None:
    def awkward(images: torch.Tensor) -> torch.Tensor:
        total = float(images.detach().sum().item())  # functorch refuses .item()
        return images.flatten(1)[:, :5] * (2.0 if total > 0 else 1.0)

    embedding, pullback = pull_back(awkward, pair[0], 4)
    gradient = pullback(torch.ones(1, *embedding.shape, dtype=torch.float64))
    assert gradient.sum() == pytest.approx(2.0 * 5 * 3)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripted_modules_are_differentiated_too(pair: Images) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 20, 4).double()).eval()
    scripted = torch.jit.trace(module, pair[0])
    _, expected = pull_back(module, pair[0], 2)
    _, found = pull_back(scripted, pair[0], 2)
    cotangents = torch.eye(4, dtype=torch.float64)[:, None, :].expand(-1, 3, -1)
    torch.testing.assert_close(found(cotangents), expected(cotangents))


class Double(torch.autograd.Function):
    """A user's own operation, which torch can differentiate but not vectorise."""

    @staticmethod
    def forward(images: torch.Tensor) -> torch.Tensor:
        return images * 2

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * (2 if gradient.abs().sum().item() >= 0 else 0)  # .item() cannot be vectorised


def test_backward_passes_that_cannot_be_vectorised_are_looped(recognizer: Recognizer, pair: Images) -> None:
    embedding, pullback = pull_back(lambda images: recognizer.features(Double.apply(images)), pair[0], 4)
    found = pullback(one_hot_cotangents(range(6), embedding))
    expected = 2 * plain_gradients(recognizer, pair[0] * 2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_errors_of_the_function_keep_their_message(recognizer: Recognizer) -> None:
    with pytest.raises(InputError, match="24×20"):
        pull_back(recognizer.features, torch.zeros(1, 3, 5, 5, dtype=torch.float64), 4)
    with pytest.raises(InputError, match="chunk_size"):
        pull_back(recognizer.features, torch.zeros(1), 0)


def test_folding_keeps_values_and_gradients_and_the_original(recognizer: Recognizer, pair: Images) -> None:
    before = {name: value.clone() for name, value in recognizer.state_dict().items()}
    folded = folded_recognizer(recognizer)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(pair[0]), recognizer(pair[0]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        plain_gradients(folded, pair[0]), plain_gradients(recognizer, pair[0]), rtol=1e-9, atol=1e-12
    )
    assert folded.threshold == recognizer.threshold
    for name, value in recognizer.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", KINDS)
def test_folding_published_architectures(name: str) -> None:
    torch.manual_seed(0)
    network = KINDS[name]().double().eval()
    images = torch.rand(1, 3, *KINDS[name].input_size, dtype=torch.float64)
    folded = fold_batchnorm(network)
    assert folded is not network
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-8, atol=1e-9)


def test_networks_with_hooks_or_in_training_are_not_folded(recognizer: Recognizer) -> None:
    network = recognizer.network
    handle = network.get_submodule("relu1").register_forward_hook(lambda *_: None)
    assert fold_batchnorm(network) is network
    handle.remove()
    assert fold_batchnorm(network.train()) is network


def test_tensors_of_five_dimensions_do_not_keep_a_network_from_being_folded() -> None:
    """Transformers with windows hold such constants."""

    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.bias = nn.Parameter(torch.rand(1, 1, 4, 1, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (self.bn(self.conv(images))[None] + self.bias)[0].flatten(1)

    network, images = Windowed().eval(), torch.rand(2, 3, 8, 8)
    folded = fold_batchnorm(network)
    assert folded is not network
    torch.testing.assert_close(folded(images), network(images))


def test_what_was_folded_is_kept_until_the_network_changes(recognizer: Recognizer, pair: Images) -> None:
    first = safely_folded(recognizer, pair[0])
    second = safely_folded(recognizer, pair[0])
    assert isinstance(first, Recognizer)
    assert isinstance(second, Recognizer)
    assert first.network is second.network is not recognizer.network
    with torch.no_grad():
        recognizer.network.get_submodule("bn1").running_mean.add_(0.5)
    changed = safely_folded(recognizer, pair[0])
    assert isinstance(changed, Recognizer)
    assert changed.network is not first.network
    torch.testing.assert_close(changed(pair[0]), recognizer(pair[0]), rtol=1e-10, atol=1e-12)


def test_a_folded_network_shares_no_parameters_that_could_be_frozen(recognizer: Recognizer) -> None:
    folded = folded_recognizer(recognizer).requires_grad_(False)
    assert not any(value.requires_grad for value in folded.parameters())
    assert all(value.requires_grad for value in recognizer.parameters())


def test_modules_in_training_are_not_tried() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).train()
    assert safely_folded(network, torch.rand(2, 3, 6, 6)) is network
    assert int(network[1].num_batches_tracked) == 0


def test_many_threads_get_the_same_from_one_network(recognizer: Recognizer, pair: Images) -> None:
    expected = recognizer(pair[0])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: safely_folded(recognizer, pair[0])(pair[0]), range(12)))
    for units in found:
        torch.testing.assert_close(units, expected, rtol=1e-10, atol=1e-12)


def test_inference_mode_changes_no_gradient(recognizer: Recognizer, pair: Images) -> None:
    """Neither that of the caller, nor images that were made in it."""
    expected = attribute_all_channels(recognizer.features, pair[0])
    with torch.inference_mode():
        made_there = pair[0].clone()
        assert torch.equal(attribute_all_channels(recognizer.features, pair[0]), expected)
        assert torch.equal(attribute_all_channels(recognizer.features, made_there), expected)
        saliency = attribute_all_channels(Saliency(recognizer.features), made_there, abs=False)
    assert expected.any()
    torch.testing.assert_close(saliency, expected)


def test_whole_numbers_cannot_be_differentiated(recognizer: Recognizer, pair: Images) -> None:
    for images in (pair[0].mul(255).byte(), pair[0].long()):
        with pytest.raises(InputError, match="must be of floats"):
            pull_back(recognizer.features, images)
    for chunk_size in (0, 1.5, True):
        with pytest.raises(InputError, match="chunk_size must be"):
            pull_back(recognizer.features, pair[0], chunk_size)  # type: ignore[arg-type]  # that is the point
