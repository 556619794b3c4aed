"""Convolutions for batches of gradients equal torch's own, and those that they are not for are torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.channels.convolutions import BatchedConvolutions, batched_convolutions
from xfr_plugin.channels.pullback import one_hot_cotangents, pull_back

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"stride": 2, "padding": 1},
    {"stride": (3, 2), "padding": (0, 2), "dilation": (1, 2)},
    {"stride": 2, "groups": 2, "dilation": 2},
    {"padding": "same"},
)


def drawn(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))) - 0.5


@pytest.mark.parametrize("size", [(11, 14), (12, 13)])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_values_and_gradients_are_those_of_torch(settings: dict[str, Any], size: tuple[int, int]) -> None:
    weight, bias = drawn(6, 4 // settings.get("groups", 1), 3, 3), drawn(6)

    def embed(images: Tensor) -> Tensor:
        return functional.conv2d(input=images, weight=weight, bias=bias, **settings).flatten(1)[:, ::7].tanh()

    images = drawn(2, 4, *size)
    value, pullback = pull_back(embed, images)
    torch.testing.assert_close(value, embed(images))
    leaf = images.clone().requires_grad_()
    expected = [torch.autograd.grad(embed(leaf)[:, k].sum(), leaf)[0] for k in range(5)]
    found = pullback(one_hot_cotangents(range(5), value))
    torch.testing.assert_close(found, torch.stack(expected))


def test_weights_that_depend_on_the_images_have_their_share(pair: tuple[Tensor, Tensor]) -> None:
    def embed(images: Tensor) -> Tensor:
        weight = images.mean(dim=(0, 2, 3))[None, :, None, None]
        return functional.conv2d(images, weight, stride=8).flatten(1)

    leaf = pair[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(embed(leaf)[:, 0].sum(), leaf)
    value, pullback = pull_back(embed, pair[0])
    torch.testing.assert_close(pullback(one_hot_cotangents(range(2), value))[0], expected)


def test_they_work_where_torch_casts_by_itself() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    images = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        value, pullback = pull_back(network, images)
    found = pullback(one_hot_cotangents(range(3), value))
    exact, exactly = pull_back(network, images)
    torch.testing.assert_close(found, exactly(one_hot_cotangents(range(3), exact)), atol=2e-2, rtol=0)


def test_a_gradient_of_many_channels_passes_each_layer_once() -> None:
    """Not once for each channel, which takes twice as long."""
    passes: list[int] = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(images: Tensor) -> Tensor:
            return images.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            passes.append(1)
            return gradient

    convolution = nn.Conv2d(3, 6, 3)
    value, pullback = pull_back(
        lambda images: convolution(Counted.apply(images)).mean((2, 3)), drawn(2, 3, 9, 9).float()
    )
    found = pullback(one_hot_cotangents(range(6), value))
    assert found.shape == (6, 2, 3, 9, 9)
    assert passes == [1]


def test_nothing_of_them_is_left() -> None:
    with BatchedConvolutions():
        inside = functional.conv2d(drawn(1, 2, 5, 5).requires_grad_(), drawn(3, 2, 3, 3))
    outside = functional.conv2d(drawn(1, 2, 5, 5).requires_grad_(), drawn(3, 2, 3, 3))
    assert type(inside.grad_fn).__name__ == "_ConvolutionBackward"
    assert type(outside.grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), ((2, 3), (1, 2), (2, 1), 4), (2, 1, 1, 2), ((1, 2), (0, 1), 1, 4)],
)
def test_derivatives_of_every_order_are_those_of_torch(
    stride: int, padding: int, dilation: int, groups: int
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, (3, 2), stride, padding, dilation, groups).double()
    x = torch.randn(2, 4, 13, 11, dtype=torch.float64, requires_grad=True)

    def derivatives() -> tuple[Tensor, ...]:
        y = layer(x)
        start = torch.ones_like(y).cos_().requires_grad_()
        (first,) = torch.autograd.grad(y, x, start, create_graph=True)
        weights = torch.sin(torch.arange(first.numel(), dtype=torch.float64)).view_as(first).requires_grad_()
        (second,) = torch.autograd.grad(first, start, weights, create_graph=True)
        (third,) = torch.autograd.grad(second, weights, y.detach())
        return y.detach(), first.detach(), second.detach(), third

    expected = derivatives()
    with batched_convolutions(layer):
        found = derivatives()
    assert "_conv_forward" not in layer.__dict__
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_convolutions_of_another_kind_are_left_alone() -> None:
    class Own(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return 2 * super()._conv_forward(input, weight, bias)

    layers = [
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, padding="same"),
        Own(2, 2, 3),
    ]
    x = torch.randn(1, 2, 6, 6)
    for layer in layers:
        expected = layer(x)
        with batched_convolutions(layer):
            assert torch.equal(layer(x), expected)
