"""Grad-CAM, Grad-CAM++ and Score-CAM of the cosine against their formulas, with both signs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.counting import counted
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr import GradCam, GradCamPlusPlus, ScoreCam
from xfr_plugin.attr._base.layers import find_layer, last_spatial_layer
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.recognition import Recognizer

Images = tuple[Tensor, Tensor]
CAMS = (GradCam, GradCamPlusPlus, ScoreCam)


def activations_of(recognizer: Recognizer, image: Tensor, layer: str) -> Tensor:
    """Activations 1×8×h×w after relu1 or relu2."""
    net = recognizer.network
    first = net.bn1(net.conv1(recognizer.preprocess(image))).relu()
    return first if layer == "relu1" else net.bn2(net.conv2(first)).relu()


def score_of(recognizer: Recognizer, activations: Tensor, partner: Tensor, layer: str) -> Tensor:
    net = recognizer.network
    last = activations if layer == "relu2" else net.bn2(net.conv2(activations)).relu()
    return functional.cosine_similarity(net.fc(last.flatten(1)), recognizer.features(partner))


def gradient_and_activations(
    recognizer: Recognizer, image: Tensor, partner: Tensor, layer: str
) -> tuple[Tensor, Tensor]:
    activations = activations_of(recognizer, image, layer).detach().requires_grad_()
    score = score_of(recognizer, activations, partner, layer).sum()
    return torch.autograd.grad(score, activations)[0], activations.detach()


def upsampled(cam: Tensor) -> Tensor:
    return functional.interpolate(cam[None, None], (24, 20), mode="bilinear")[0, 0]


def slow_cam(
    cls: type, recognizer: Recognizer, image: Tensor, partner: Tensor, layer: str, option: str
) -> Tensor:
    """Rectified map of the score less that of the negated score, place by place; 24×20."""
    gradient, activations = gradient_and_activations(recognizer, image, partner, layer)
    parts = []
    for sign in (1, -1):
        g, a = sign * gradient[0], activations[0]
        cam = torch.zeros(a.shape[1:], dtype=torch.float64)
        for k in range(len(a)):
            weight = g[k].mean()
            if cls is GradCamPlusPlus:
                terms = a[k] * g[k] ** 3
                total = terms.sum() if option == "all" else terms[terms > 0].sum()
                weight = torch.zeros(())
                for place in zip(*torch.nonzero(g[k] > 0, as_tuple=True), strict=True):
                    square = g[k][place] ** 2
                    weight = weight + square / (2 * square + total) * g[k][place]
            cam += weight * a[k]
        parts.append(upsampled(cam.clamp(min=0)))
    return parts[0] - parts[1]


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
@pytest.mark.parametrize(
    ("cls", "option"), [(GradCam, ""), (GradCamPlusPlus, "positive"), (GradCamPlusPlus, "all")]
)
def test_gradient_cams_equal_their_formulas(
    recognizer: Recognizer, pair: Images, cls: type, option: str, layer: str
) -> None:
    options = {"places": option} if option else {}
    maps = cls(recognizer, layer=f"network.{layer}", **options).attribute(pair)
    for i in range(3):
        expected = slow_cam(cls, recognizer, pair[0][i : i + 1], pair[1][i : i + 1], layer, option)
        torch.testing.assert_close(maps[0][i].sum(0), expected)
        torch.testing.assert_close(maps[0][i, 0], maps[0][i, 2])


def test_grad_cam_with_both_signs_is_the_sum_without_its_rectifier(
    recognizer: Recognizer, pair: Images
) -> None:
    gradient, activations = gradient_and_activations(recognizer, *pair, "relu2")
    cam = (gradient.mean((2, 3), keepdim=True) * activations).sum(1)
    maps = GradCam(recognizer).attribute(pair)
    torch.testing.assert_close(maps[0][1].sum(0), upsampled(cam[1]))


@pytest.mark.parametrize("weights", ["softmax", "increase"])
@pytest.mark.parametrize("max_channels", [None, 3])
def test_score_cam_equals_its_formula(
    recognizer: Recognizer, pair: Images, weights: str, max_channels: int | None
) -> None:
    attribution = ScoreCam(recognizer, weights=weights, max_channels=max_channels, batch_size=3)
    found = attribution.attribute(pair)[1][0].sum(0)
    image, partner = pair[1][:1], recognizer.embed(pair[0][:1])
    activations = activations_of(recognizer, image, "relu2")[0].detach()
    if max_channels is not None:
        largest = sorted(range(8), key=lambda k: -activations[k].var().item())[:max_channels]
        activations = activations[sorted(largest)]
    black = (recognizer.embed(torch.zeros_like(image)) * partner).sum()
    increase = []
    for activation in activations:
        mask = upsampled(activation)
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / spread if spread > 0 else torch.zeros_like(mask)  # a dead channel
        increase.append((recognizer.embed(image * mask) * partner).sum() - black)
    gains = torch.stack(increase)
    cams = []
    for signed in (gains, -gains):
        weight = signed.exp() / signed.exp().sum() if weights == "softmax" else signed.clamp(min=0)
        cams.append(upsampled((weight[:, None, None] * activations).sum(0).clamp(min=0)))
    torch.testing.assert_close(found, cams[0] - cams[1])


def test_a_constant_channel_masks_everything_and_stays_finite(recognizer: Recognizer, pair: Images) -> None:
    with torch.no_grad():
        recognizer.network.bn2.weight[0] = 0
        recognizer.network.bn2.bias[0] = 1
    for cls in CAMS:
        assert bool(torch.isfinite(cls(recognizer).attribute(pair)[0]).all())


def test_the_last_layer_with_places_is_found_in_the_order_of_calls(
    recognizer: Recognizer, pair: Images
) -> None:
    network = recognizer.network
    assert last_spatial_layer(recognizer, pair[0])[0] is network.relu2
    assert last_spatial_layer(lambda images: recognizer.features(images), pair[0])[0] is network.relu2
    late = nn.ModuleDict(
        {"second": nn.Conv2d(3, 4, 3), "first": nn.Conv2d(3, 3, 3), "pool": nn.AvgPool2d(20)}
    )
    found = last_spatial_layer(
        lambda images: late["pool"](late["second"](late["first"](images))).flatten(1),
        torch.rand(1, 3, 24, 24),
    )
    assert found == (late["second"], None)
    assert find_layer(recognizer, "network.conv1", pair[0])[0] is network.conv1


def test_layers_that_do_not_serve_are_refused(recognizer: Recognizer, pair: Images) -> None:
    with pytest.raises(UnknownNameError, match=r"network\.conv3"):
        GradCam(recognizer, layer="network.conv3").attribute(pair)
    with pytest.raises(InputError, match="more than one place"):
        GradCam(recognizer, layer="network.fc").attribute(pair)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(1440, 4)).double()
    with pytest.raises(InputError, match="convolutional network"):
        GradCam(flat, 0.2).attribute(pair)
    with pytest.raises(InputError, match="forward function is none"):
        find_layer(recognizer.features, "network.conv1", pair[0])
    with pytest.raises(InputError, match="layer=… needs"):
        GradCam(recognizer.features, 0.2, layer="network.conv1").attribute(pair)


@pytest.mark.parametrize("cls", CAMS)
def test_no_hook_is_left_also_after_an_error(recognizer: Recognizer, pair: Images, cls: Any) -> None:
    def hooks() -> int:
        total = len(nn.modules.module._global_forward_hooks)
        return total + sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in recognizer.modules())

    cls(recognizer).attribute(pair)
    assert hooks() == 0
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) > 2:  # after the partners' embeddings and the search for the layer
            raise ValueError("broken")

    handle = recognizer.network.fc.register_forward_hook(fail)
    with pytest.raises(ValueError, match="broken"):
        cls(recognizer).attribute(pair)
    handle.remove()
    assert hooks() == 0


def test_the_layer_is_looked_for_once(
    recognizer: Recognizer, pair: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its search costs a pass. Another layer of a changed network is found."""
    passes = counted(monkeypatch)
    cam = GradCam(recognizer)
    expected = cam.attribute(pair)
    passes.clear()
    torch.testing.assert_close(cam.attribute(pair), expected)
    images = 2 * len(pair[0])
    assert passes["images"] == 2 * images, "for the partners, and for the maps"
    recognizer.network.relu2 = nn.Identity()
    passes.clear()
    cam.attribute(pair)
    assert passes["images"] > 2 * images


def test_batchnorm_is_folded_in_unless_the_layer_is_one(
    recognizer: Recognizer, pair: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded, unfolded = GradCam(recognizer), GradCam(recognizer, layer="network.bn2")
    expected = folded.attribute(pair)
    unfolded.attribute(pair)

    def refuse(*_: object) -> Tensor:
        raise NotImplementedError

    monkeypatch.setattr(nn.BatchNorm2d, "forward", refuse)
    torch.testing.assert_close(folded.attribute(pair), expected)
    with pytest.raises(NotImplementedError):
        unfolded.attribute(pair)


@pytest.mark.parametrize("layer", ["conv2", "bn2", "relu2"])
def test_maps_are_those_without_folding_whichever_layer_is_named(
    recognizer: Recognizer, pair: Images, layer: str
) -> None:
    found = GradCam(recognizer, layer=f"network.{layer}").attribute(pair)
    recognizer.network.register_forward_hook(lambda *_: None)  # nothing is folded into what carries hooks
    expected = GradCam(recognizer, layer=f"network.{layer}").attribute(pair)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
