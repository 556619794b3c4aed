"""Every channel at once equals the loop over targets, in chunks, with one forward pass for a chunk."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from captum.attr import (
    Attribution,
    DeepLift,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor

from xfr_plugin.channels.all_channels import attribute_all_channels, iterate_channels
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer, load_recognizer

Images = tuple[Tensor, Tensor]

METHODS: list[tuple[type[Attribution], dict[str, Any]]] = [
    (Saliency, {"abs": False}),
    (InputXGradient, {}),
    (IntegratedGradients, {"n_steps": 5}),
    (IntegratedGradients, {"n_steps": 5, "internal_batch_size": 7, "method": "riemann_trapezoid"}),
    (DeepLift, {}),
    (Occlusion, {"sliding_window_shapes": (3, 12, 10), "strides": (3, 12, 10)}),
]


def loop(method: Attribution, images: Tensor, channels: range, /, **options: Any) -> Tensor:
    """What one writes first: the method for one target after the other."""
    maps = [method.attribute(images.clone().requires_grad_(), target=k, **options) for k in channels]
    return torch.stack(maps, dim=1).detach()


@pytest.fixture(autouse=True)
def _captum_warns_about_hooks() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require", UserWarning)
        yield


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
@pytest.mark.parametrize(("cls", "options"), METHODS)
def test_methods_of_captum_equal_the_loop(
    recognizer: Recognizer, pair: Images, cls: type[Attribution], options: dict[str, Any], chunk_size: int
) -> None:
    method = cls(recognizer)
    expected = loop(method, pair[0], range(6), **options)
    with torch.no_grad():
        found = attribute_all_channels(method, pair[0], chunk_size=chunk_size, **options)
    assert found.shape == (3, 6, 3, 24, 20)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_plain_gradients_equal_the_loop(
    recognizer: Recognizer, pair: Images, chunk_size: int, fold: bool
) -> None:
    expected = loop(Saliency(recognizer), pair[0], range(6), abs=False)
    found = attribute_all_channels(recognizer, pair[0], chunk_size=chunk_size, fold=fold)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("make", [lambda model: model, IntegratedGradients])
def test_some_channels_reduced_and_iterated(recognizer: Recognizer, pair: Images, make: Any) -> None:
    every = attribute_all_channels(make(recognizer), pair[0])
    some = attribute_all_channels(
        make(recognizer), pair[0], channels=range(1, 6, 2), chunk_size=2, reduce=lambda maps: maps.sum(2)
    )
    torch.testing.assert_close(some, every[:, 1::2].sum(2))
    chunks = list(iterate_channels(make(recognizer), pair[0], chunk_size=4))
    assert [list(channels) for channels, _ in chunks] == [[0, 1, 2, 3], [4, 5]]
    torch.testing.assert_close(torch.cat([maps for _, maps in chunks], dim=1), every)


def test_a_chunk_shares_its_forward_passes(recognizer: Recognizer, pair: Images) -> None:
    seen: list[int] = []
    handle = recognizer.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    attribute_all_channels(IntegratedGradients(recognizer), pair[0], chunk_size=6, n_steps=4, fold=False)
    handle.remove()
    assert seen == [
        3,
        *[3] * 4,
    ]  # the number of channels; then one point of the path at a time, for all channels


def test_noise_is_different_for_every_copy_and_not_shared(recognizer: Recognizer, pair: Images) -> None:
    """Where copies differ the pass cannot be shared; without noise to speak of the result is the plain one."""
    options = {"baselines": torch.zeros(1, 3, 24, 20).double(), "n_samples": 3, "stdevs": 1e-9}
    shap = attribute_all_channels(GradientShap(recognizer), pair[0], chunk_size=4, **options)
    assert shap.shape == (3, 6, 3, 24, 20)
    tunnel = NoiseTunnel(Saliency(recognizer))
    found = attribute_all_channels(tunnel, pair[0], chunk_size=4, nt_samples=2, stdevs=1e-9, abs=False)
    torch.testing.assert_close(
        found, loop(Saliency(recognizer), pair[0], range(6), abs=False), rtol=1e-3, atol=1e-6
    )


def test_further_arguments_and_baselines_of_each_image(recognizer: Recognizer, pair: Images) -> None:
    gains = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def embed(images: Tensor, gain: Tensor, power: int) -> Tensor:
        return recognizer.features(images * gain.view(-1, 1, 1, 1)) ** power

    arguments = {"additional_forward_args": (gains, 2)}
    expected = loop(Saliency(embed), pair[0], range(6), abs=False, **arguments)
    torch.testing.assert_close(attribute_all_channels(embed, pair[0], **arguments), expected)
    options = {**arguments, "baselines": pair[1], "n_steps": 3}
    method = IntegratedGradients(embed)
    torch.testing.assert_close(
        attribute_all_channels(method, pair[0], chunk_size=4, **options),
        loop(method, pair[0], range(6), **options),
    )


def test_the_method_and_the_model_are_left_as_they_were(recognizer: Recognizer, pair: Images) -> None:
    method = IntegratedGradients(recognizer)
    before = dict(vars(method))
    images = pair[0].clone()
    attribute_all_channels(method, images, n_steps=2)
    assert vars(method) == before
    assert not images.requires_grad
    assert not any(module._forward_hooks or module._backward_hooks for module in recognizer.modules())
    with pytest.raises(AssertionError, match="Baseline"):
        attribute_all_channels(
            method, images, n_steps=2, additional_forward_args=(), baselines=torch.zeros(5)
        )
    assert vars(method) == before


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"chunk_size": 0}, "chunk_size"),
        ({"channels": range(4, 8)}, "within 0…5"),
        ({"channels": range(0)}, "within 0…5"),
        ({"n_steps": 3}, "no options: n_steps"),
    ],
)
def test_bad_arguments_are_refused(
    recognizer: Recognizer, pair: Images, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        attribute_all_channels(recognizer, pair[0], **keywords)
    with pytest.raises(InputError, match="at least one image"):
        attribute_all_channels(recognizer, pair[0][:0])
    with pytest.raises(InputError, match="N×D"):
        attribute_all_channels(lambda images: images, pair[0])


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["xfr_compact128", "mobilefacenet_ms1m"])
def test_real_weights(real_pair: tuple[Tensor, Tensor], name: str) -> None:
    recognizer = load_recognizer(name).double()  # in float32 rounding switches single rectifiers
    image = real_pair[0].double()
    channels = range(5, 8)
    for method, options in (
        (Saliency(recognizer), {"abs": False}),
        (IntegratedGradients(recognizer), {"n_steps": 2}),
    ):
        expected = loop(method, image, channels, **options)
        found = attribute_all_channels(method, image, channels=channels, **options)
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-7
