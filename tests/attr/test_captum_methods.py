"""Captum's methods on pairs equal Captum called by hand, and keep what the methods promise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearModel
from helpers.counting import counted
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr import (
    PairAttribution,
    PairDeepLift,
    PairInputXGradient,
    PairIntegratedGradients,
    PairKernelShap,
    PairLime,
    PairOcclusion,
    PairSmoothGrad,
)
from xfr_plugin.attr._base.baselines import baseline_images
from xfr_plugin.attr._base.rectified import multipliers, recorded
from xfr_plugin.attr._base.superpixels import face_parts
from xfr_plugin.base.captum import get_exp_kernel_similarity_function
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition import Recognizer

Images = tuple[Tensor, Tensor]


def cosine_of(recognizer: Recognizer, partner: Tensor) -> Any:
    unit = recognizer.embed(partner)
    return lambda images: functional.cosine_similarity(recognizer.features(images), unit)


def first_maps(attribution: PairAttribution, pair: Images) -> Tensor:
    return attribution.attribute((pair[0][:1], pair[1][:1]))[0]


def by_hand(name: str, recognizer: Recognizer, pair: Images, *init: Any, **keywords: Any) -> Tensor:
    """Captum itself, on the first probe and a function that scores it."""
    score = cosine_of(recognizer, pair[1][:1])
    leaf = pair[0][:1].clone().requires_grad_()
    maps: Tensor = getattr(captum.attr, name)(score, *init).attribute(leaf, **keywords)
    return maps.detach()


def test_integrated_gradients_equal_captums_and_are_complete(recognizer: Recognizer, pair: Images) -> None:
    found = first_maps(PairIntegratedGradients(recognizer, n_steps=20, internal_batch_size=3), pair)
    expected = by_hand("IntegratedGradients", recognizer, pair, n_steps=20)
    torch.testing.assert_close(found, expected)
    for baseline in ("black", "grey", "mean", "blur"):
        maps = PairIntegratedGradients(recognizer, n_steps=100, baseline=baseline).attribute(pair)
        for side, image, partner in ((maps[0], *pair), (maps[1], *pair[::-1])):
            score = cosine_of(recognizer, partner)
            difference = score(image) - score(baseline_images(image, baseline))
            torch.testing.assert_close(side.sum((1, 2, 3)), difference.detach(), atol=3e-3, rtol=0)


@pytest.mark.parametrize("method", ["riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid"])
def test_quadratures_of_captum(recognizer: Recognizer, pair: Images, method: str) -> None:
    found = first_maps(PairIntegratedGradients(recognizer, n_steps=8, method=method), pair)
    expected = by_hand("IntegratedGradients", recognizer, pair, n_steps=8, method=method)
    torch.testing.assert_close(found, expected)


def test_input_times_gradient_is_that(recognizer: Recognizer, pair: Images) -> None:
    leaf = pair[1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cosine_of(recognizer, pair[0])(leaf).sum(), leaf)
    maps = PairInputXGradient(recognizer, batch_size=2).attribute(pair)
    torch.testing.assert_close(maps[1], pair[1] * gradient)


@pytest.mark.parametrize("noise_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("gradient", ["signed", "absolute"])
def test_smoothgrad_averages_gradients_of_noisy_copies(
    recognizer: Recognizer, pair: Images, noise_type: str, gradient: str
) -> None:
    attribution = PairSmoothGrad(
        recognizer,
        n_samples=7,
        noise=0.1,
        noise_type=noise_type,
        gradient=gradient,
        samples_per_batch=7,
        seed=3,
    )
    torch.manual_seed(3)
    leaf = pair[0][:1].expand(7, -1, -1, -1) + torch.normal(0, torch.full((7, 3, 24, 20), 0.1))
    leaf.requires_grad_()
    score = cosine_of(recognizer, pair[1][:1])
    (grads,) = torch.autograd.grad(score(leaf).sum(), leaf)
    grads = grads.abs() if gradient == "absolute" else grads
    square = grads.square().mean(0)
    expected = {
        "smoothgrad": grads.mean(0),
        "smoothgrad_sq": square,
        "vargrad": square - grads.mean(0).square(),
    }[noise_type]
    torch.testing.assert_close(first_maps(attribution, pair)[0], expected, rtol=1e-6, atol=1e-10)


def test_deeplift_equals_captums_on_relu_networks(recognizer: Recognizer, pair: Images) -> None:
    class Score(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recognizer = recognizer
            self.unit = recognizer.embed(pair[1][:1])

        def forward(self, images: Tensor) -> Tensor:
            return functional.cosine_similarity(self.recognizer.features(images), self.unit)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.attr.DeepLift(Score()).attribute(pair[0][:1], baselines=0.5)
    found = first_maps(PairDeepLift(recognizer, baseline="grey"), pair)
    torch.testing.assert_close(found, expected.detach())


def test_deeplift_equals_captums_on_pooling_networks() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 6),
        nn.Tanh(),
        nn.Linear(6, 1),
    ).double()
    images = torch.rand(2, 3, 8, 8).double().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.attr.DeepLift(network).attribute(images, baselines=0.5, target=0)
    baseline = torch.full((1, 3, 8, 8), 0.5).double()
    found = (images - baseline) * multipliers(network, (images,), recorded(network, (baseline,)))
    torch.testing.assert_close(found, expected)


def test_deeplift_of_an_activation_whose_input_is_read_twice() -> None:
    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.last = nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 1)

        def forward(self, images: Tensor) -> Tensor:
            x = self.first(images.flatten(1))
            output: Tensor = self.last(x + self.relu(x))
            return output

    torch.manual_seed(0)
    network = PreActivation().double()
    images = torch.randn(3, 3, 2, 2).double().requires_grad_()
    maps = images * multipliers(network, (images,), recorded(network, (torch.zeros_like(images),)))
    difference = (network(images) - network(torch.zeros_like(images)))[:, 0]
    torch.testing.assert_close(maps.sum((1, 2, 3)), difference)


def test_deeplift_refuses_what_it_cannot_explain(recognizer: Recognizer, pair: Images) -> None:
    with pytest.raises(InputError, match="module, not a function"):
        PairDeepLift(recognizer.features, 0.2).attribute(pair)


def test_deeplift_takes_a_module_that_is_used_twice(recognizer: Recognizer, pair: Images) -> None:
    expected = PairDeepLift(recognizer).attribute(pair)
    recognizer.network.relu2 = recognizer.network.relu1
    torch.testing.assert_close(PairDeepLift(recognizer).attribute(pair), expected)


@pytest.mark.parametrize("of_the_baseline", [torch.tanh, lambda values: values.sigmoid().tanh()])
def test_deeplift_refuses_a_network_whose_functions_depend_on_the_image(
    of_the_baseline: Callable[[Tensor], Tensor],
) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            values = images.flatten(1)
            return (values.sigmoid() if bool(values.any()) else of_the_baseline(values)).sum(1)

    images = torch.rand(2, 3, 2, 2)
    with pytest.raises(InputError, match="same functions for every image"):
        multipliers(Choosing(), (images,), recorded(Choosing(), (torch.zeros_like(images),)))


def test_what_activations_do_to_a_baseline_is_computed_once(
    recognizer: Recognizer, pair: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And anew for another baseline, and for a network that was changed."""
    passes = counted(monkeypatch)

    def explained(baseline: Literal["black", "grey"]) -> tuple[Images, int]:
        passes.clear()
        return PairDeepLift(recognizer, baseline=baseline).attribute(pair), passes["images"]

    explained("black")
    black, images = explained("black")
    assert images == 4 * len(pair[0]), "for the partners, and for the maps"
    grey, images = explained("grey")
    assert images > 4 * len(pair[0])
    for found, expected in zip(explained("black")[0], black, strict=True):
        assert torch.equal(found, expected)
    assert not torch.equal(grey[0], black[0])
    with torch.no_grad():
        recognizer.network.conv1.weight[0] *= 2
    assert explained("black")[1] > 4 * len(pair[0])


class Curve(nn.Module):
    """A function in the place of a module, or a module that is none of torch's."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


SINGLE: dict[str, Callable[[], nn.Module]] = {
    "relu6": nn.ReLU6,
    "in place": lambda: nn.ReLU6(inplace=True),
    "prelu": nn.PReLU,
    "prelu of channels": lambda: nn.PReLU(5),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu as a function": lambda: Curve(torch.relu),
    "gelu as a function": lambda: Curve(functional.gelu),
    "method": lambda: Curve(lambda x: x.sigmoid()),
    "bound": lambda: Curve(lambda x: x.clamp(min=-0.1)),
    "power": lambda: Curve(lambda x: x**2),
    "greatest": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.MaxPool1d(3, 1, 1), nn.Flatten()),
}


@pytest.mark.parametrize("kind", SINGLE)
def test_deeplift_sees_every_activation(kind: str) -> None:
    """On a network whose output is linear in the activation, the rescale rule sums to the difference of outputs."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), SINGLE[kind](), nn.Linear(5, 1)).double()
    images = torch.randn(3, 3, 2, 2).double() * 20
    maps = images * multipliers(network, (images,), recorded(network, (torch.zeros_like(images[:1]),)))
    difference = (network(images) - network(torch.zeros_like(images)))[:, 0]
    torch.testing.assert_close(maps.sum((1, 2, 3)), difference)


UNRULED: dict[str, Callable[[Tensor], Tensor]] = {
    "in place": lambda x: functional.relu(x, inplace=True),
    "method in place": lambda x: x.sigmoid_(),
    "layer_norm": lambda x: functional.layer_norm(x, x.shape[1:]),
    "softmax": lambda x: x.softmax(dim=1),
    "gate": lambda x: functional.glu(torch.cat((x, x), dim=1)),
    "product": lambda x: x * x.mean(dim=1, keepdim=True),
    "attention": lambda x: x @ x.T,
}


@pytest.mark.parametrize("kind", UNRULED)
def test_deeplift_refuses_what_captum_would_take_the_gradient_of(kind: str) -> None:
    """Functions, and modules of other libraries: nothing is silently left without its rule."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 5), Curve(UNRULED[kind]))
    recognizer = Recognizer(network, input_size=(2, 2), threshold=0.1)
    recognizer.tested = True
    pair = torch.rand(2, 1, 3, 2, 2)
    with pytest.raises(InputError, match=r"DeepLift has no rule for .*use another method"):
        PairDeepLift(recognizer).attribute((pair[0], pair[1]))


def test_deeplift_takes_what_is_linear_as_it_is() -> None:
    """Scales that are weights, and the normalisation of the embedding."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(5))

        def forward(self, values: Tensor) -> Tensor:
            return functional.normalize(values * self.scale.view(1, -1))

    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), Scaled())
    recognizer = Recognizer(network, input_size=(2, 2), threshold=0.1)
    recognizer.tested = True
    pair = torch.rand(2, 1, 3, 2, 2)
    maps = PairDeepLift(recognizer).attribute((pair[0], pair[1]))
    assert all(side.any() and side.isfinite().all() for side in maps)


def test_occlusion_is_the_mean_drop_of_the_score(recognizer: Recognizer, pair: Images) -> None:
    """Squares of 56 and a stride of 28 pixels of 112 are 12×10 and 6×5 pixels here."""
    found = first_maps(
        PairOcclusion(recognizer, window=56, stride=28, baseline="grey", perturbations_per_eval=2), pair
    )
    score = cosine_of(recognizer, pair[1][:1])
    image, total, count = pair[0][:1], torch.zeros(24, 20).double(), torch.zeros(24, 20).double()
    for top in range(0, 13, 6):
        for left in range(0, 11, 5):
            covered = image.clone()
            covered[..., top : top + 12, left : left + 10] = 0.5
            drop = score(image) - score(covered)
            total[top : top + 12, left : left + 10] += drop.item()
            count[top : top + 12, left : left + 10] += 1
    torch.testing.assert_close(found.sum(1)[0], total / count)


def test_lime_and_kernel_shap_equal_captums(recognizer: Recognizer, pair: Images) -> None:
    image = pair[0][:1]
    mask = face_parts(image[0], "slic", 6).expand_as(image)
    common = {
        "feature_mask": mask,
        "n_samples": 30,
        "baselines": image.mean((2, 3), keepdim=True).expand_as(image),
    }
    torch.manual_seed(5)
    shap = by_hand("KernelShap", recognizer, pair, **common)
    found = first_maps(PairKernelShap(recognizer, n_parts=6, n_samples=30, seed=5), pair)
    torch.testing.assert_close(found * 3, shap.double(), rtol=1e-4, atol=1e-6)
    torch.manual_seed(5)
    model = SkLearnLinearModel("linear_model.Ridge", alpha=0.1)
    kernel = get_exp_kernel_similarity_function("cosine", 0.5)
    lime = by_hand("Lime", recognizer, pair, model, kernel, **common)
    attribution = PairLime(recognizer, n_parts=6, n_samples=30, alpha=0.1, kernel_width=0.5, seed=5)
    torch.testing.assert_close(first_maps(attribution, pair) * 3, lime.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parts", ["slic", "regions"])
def test_shared_shapley_values_sum_to_the_difference_of_the_scores(
    recognizer: Recognizer, pair: Images, parts: str
) -> None:
    attribution = PairKernelShap(
        recognizer, parts=parts, n_parts=6, n_samples=60, spread="share", baseline="grey"
    )
    maps = attribution.attribute(pair)
    score = cosine_of(recognizer, pair[1])
    difference = score(pair[0]) - score(torch.full_like(pair[0], 0.5))
    torch.testing.assert_close(maps[0].sum((1, 2, 3)), difference.detach(), atol=1e-3, rtol=0)


def test_regions_are_the_template_s(recognizer: Recognizer, pair: Images) -> None:
    parts = face_parts(pair[0][0], "regions", 50)[0, 0].numpy()
    labels = template_regions((24, 20)).labels
    assert len(np.unique(parts)) == len(np.unique(labels))
    assert all(len(np.unique(parts[labels == label])) == 1 for label in np.unique(labels))


def test_superpixels_of_images_without_structure(pair: Images) -> None:
    flat = face_parts(torch.full((3, 24, 20), 0.5), "slic", 6)
    assert 2 <= len(flat.unique()) <= 12
    with pytest.raises(InputError, match="one part"):
        face_parts(pair[0][0], "slic", 1)


def test_memory_bounds_leave_the_maps_as_they_are(recognizer: Recognizer, pair: Images) -> None:
    for cls, option in (
        (PairIntegratedGradients, "internal_batch_size"),
        (PairInputXGradient, "batch_size"),
        (PairDeepLift, "batch_size"),
        (PairSmoothGrad, "samples_per_batch"),
        (PairOcclusion, "perturbations_per_eval"),
    ):
        seen: list[int] = []
        handle = recognizer.register_forward_pre_hook(
            lambda _, images, seen=seen: seen.append(len(images[0]))
        )
        options = {"n_samples": 50} if cls is PairSmoothGrad else {}
        expected = cls(recognizer, **options).attribute(pair)
        largest, seen[:] = max(seen), []
        found = cls(recognizer, **options, **{option: 2}).attribute(pair)
        handle.remove()
        if cls is PairSmoothGrad:  # the batches draw their noise one after another
            assert found[0].shape == expected[0].shape
        else:
            torch.testing.assert_close(found, expected)
        if cls is not PairDeepLift:  # runs on a copy, whose hook notes nothing here
            assert max(seen[1:]) <= 6 < largest or max(seen[1:]) <= 2


def test_arguments_that_have_no_row_for_each_pair_are_passed_whole(
    recognizer: Recognizer, pair: Images
) -> None:
    colours = torch.tensor([1.0, 0.5], dtype=torch.float64)  # two values for three pairs

    def embed(images: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        assert weights.shape == (2,)
        return recognizer.features(images * weights[0] * scale)

    scale = torch.tensor(0.5, dtype=torch.float64)
    maps = PairIntegratedGradients(embed, 0.2, n_steps=3).attribute(
        pair, additional_forward_args=(colours, scale)
    )
    expected = PairIntegratedGradients(lambda images: recognizer.features(images * 0.5), 0.2, n_steps=3)
    torch.testing.assert_close(maps, expected.attribute(pair))


def test_maps_that_contain_the_input_say_so(recognizer: Recognizer) -> None:
    for cls in (PairIntegratedGradients, PairInputXGradient, PairDeepLift):
        assert cls(recognizer).multiplies_by_inputs
    assert not PairSmoothGrad(recognizer).multiplies_by_inputs


def test_progress_is_shown_if_wanted(
    recognizer: Recognizer, pair: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    first_maps(PairOcclusion(recognizer, window=56, stride=56), pair)
    assert not capsys.readouterr().err
    first_maps(PairOcclusion(recognizer, window=56, stride=56, show_progress=True), pair)
    assert "Occlusion" in capsys.readouterr().err
