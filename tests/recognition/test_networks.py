"""Published architectures: key layouts, shapes, and one module for each activation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.architectures import KINDS
from helpers.contributed import contributed
from numpy.typing import NDArray
from torch import nn

from xfr_plugin import explain
from xfr_plugin.base.weights import write_weights
from xfr_plugin.errors import UnknownNameError
from xfr_plugin.recognition import ARCHITECTURES, build_network, load_recognizer
from xfr_plugin.recognition.networks import IResNet, MobileFaceNetPReLU

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.Hardtanh)


def iresnet_layout(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes as InsightFace's arcface_torch publishes them, written out from the description."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    inputs = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        for i in range(count):
            block = f"layer{stage}.{i}"
            norm(f"{block}.bn1", inputs)
            shapes[f"{block}.conv1.weight"] = (width, inputs, 3, 3)
            norm(f"{block}.bn2", width)
            shapes[f"{block}.prelu.weight"] = (width,)
            shapes[f"{block}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{block}.bn3", width)
            if i == 0:
                shapes[f"{block}.downsample.0.weight"] = (width, inputs, 1, 1)
                norm(f"{block}.downsample.1", width)
            inputs = width
    norm("bn2", 512)
    shapes["fc.weight"], shapes["fc.bias"] = (512, 512 * 7 * 7), (512,)
    norm("features", 512)
    return shapes


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("iresnet18", (2, 2, 2, 2)),
        ("iresnet34", (3, 4, 6, 3)),
        ("iresnet50", (3, 4, 14, 3)),
        ("iresnet100", (3, 13, 30, 3)),
    ],
)
def test_iresnet_has_the_published_key_layout(name: str, blocks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = build_network(name)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == iresnet_layout(blocks)


@pytest.mark.parametrize("name", KINDS)
def test_output_shape_and_gradient(name: str) -> None:
    network = build_network(name).eval()
    images = torch.rand(1, 3, *KINDS[name].input_size, requires_grad=True)
    embedding = network(images)
    assert embedding.ndim == 2
    embedding.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("name", KINDS)
def test_every_activation_is_its_own_module_and_not_in_place(name: str) -> None:
    network = build_network(name).eval()
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, *_: object) -> None:
        calls[module] = calls.get(module, 0) + 1

    for module in network.modules():
        if isinstance(module, ACTIVATIONS):
            assert not getattr(module, "inplace", False)
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.rand(1, 3, *KINDS[name].input_size))
    assert calls
    assert set(calls.values()) == {1}


def test_prelu_form_has_the_published_keys() -> None:
    keys = MobileFaceNetPReLU().state_dict().keys()
    for key in (
        "conv1.conv.weight",
        "conv1.bn.running_mean",
        "conv1.prelu.weight",
        "conv2_dw.conv.weight",
        "conv_23.conv.conv.weight",
        "conv_23.conv_dw.prelu.weight",
        "conv_23.project.bn.bias",
        "conv_3.model.3.project.conv.weight",
        "conv_4.model.5.conv.prelu.weight",
        "conv_6_sep.prelu.weight",
        "conv_6_dw.conv.weight",
        "linear.weight",
        "bn.running_var",
    ):
        assert key in keys
    assert "conv_6_dw.prelu.weight" not in keys


def test_iresnet_takes_inputs_that_are_not_square() -> None:
    network = IResNet((1, 1, 1, 1), embedding_dim=32, input_size=(64, 48)).eval()
    assert network(torch.rand(2, 3, 64, 48)).shape == (2, 32)


def test_unknown_architecture() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'iresnet50'"):
        build_network("iresnet5")


@pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # the made-up face is dull
def test_an_architecture_is_its_file_and_its_test(tmp_path: Path, face_photo: NDArray[np.uint8]) -> None:
    """The file of docs/contributing.md: its weights are recognised, loaded and explained; nothing else names it.

    Files touched by a new architecture: 2 (its file, its test); there were 8.
    """
    with contributed("TinyNet", "xfr_plugin.recognition.networks", ARCHITECTURES, tmp_path):
        torch.manual_seed(0)
        write_weights(tmp_path / "net.safetensors", build_network("tiny").state_dict(), {})
        recognizer = load_recognizer(tmp_path / "net.safetensors", threshold=0.2)
        assert type(recognizer.network).__name__ == "TinyNet"
        assert recognizer.input_size == (48, 40)
        assert recognizer.mean.flatten().tolist() == pytest.approx([0.4] * 3)
        for method in ("xssab", "lrp"):
            explanation = explain(
                face_photo, face_photo[:, ::-1], recognizer=recognizer, method=method, alignment="aligned"
            )
            assert np.abs(explanation.probe.saliency).sum() > 0
    assert "tiny" not in ARCHITECTURES
