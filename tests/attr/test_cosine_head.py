"""The cosine head: one line of Captum for a pair, for every method of Captum, and right for each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
from captum.attr import DeepLift, IntegratedGradients, LayerGradCam, Saliency
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr import CosineHead
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer, load_recognizer

Images = tuple[Tensor, Tensor]

PARTS = torch.arange(480).reshape(1, 1, 24, 20) // 120
METHODS: dict[str, dict[str, Any]] = {
    "IntegratedGradients": {"n_steps": 3},
    "Saliency": {"abs": False},
    "InputXGradient": {},
    "DeepLift": {},
    "DeepLiftShap": {"baselines": torch.zeros(2, 3, 24, 20, dtype=torch.float64)},
    "GradientShap": {"baselines": torch.zeros(2, 3, 24, 20, dtype=torch.float64)},
    "GuidedBackprop": {},
    "Deconvolution": {},
    "Occlusion": {"sliding_window_shapes": (3, 12, 10), "strides": (3, 12, 10)},
    "FeatureAblation": {"feature_mask": PARTS},
    "FeaturePermutation": {"feature_mask": PARTS},
    "ShapleyValueSampling": {"feature_mask": PARTS, "n_samples": 2},
    "ShapleyValues": {"feature_mask": PARTS // 2},  # all orders of its parts
    "KernelShap": {"feature_mask": PARTS, "n_samples": 10},
    "Lime": {"feature_mask": PARTS, "n_samples": 10},
}


def for_two_images(keywords: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a method, once for each of two inputs; the second face has parts of its own."""
    twice = {"baselines", "sliding_window_shapes", "strides", "feature_mask"}
    both = {name: (value, value) if name in twice else value for name, value in keywords.items()}
    if "feature_mask" in both:
        mask = both["feature_mask"][0]
        both["feature_mask"] = (mask, mask + int(mask.max()) + 1)
    return both


def captum_maps(name: str, head: CosineHead, inputs: Any, **keywords: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum warns about hooks, and about inputs without gradients
        return getattr(captum.attr, name)(head).attribute(inputs, **keywords)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_captum_explains_a_pair(recognizer: Recognizer, pair: Images, name: str) -> None:
    probe, embedding = pair[0], recognizer.embed(pair[1])
    keywords = METHODS[name]
    for head, further in (
        (CosineHead(recognizer), {"additional_forward_args": (embedding,)}),
        (CosineHead(recognizer, reference=embedding[0]), {}),
    ):
        maps = captum_maps(name, head, probe, **keywords, **further)
        assert maps.shape == probe.shape
        assert bool(torch.isfinite(maps).all())
        assert name == "Lime" or maps.abs().sum() > 0  # its lasso can drop every part
    both = captum_maps(name, CosineHead(recognizer), pair, **for_two_images(keywords))
    assert [side.shape for side in both] == [probe.shape, probe.shape]
    assert name == "Lime" or all(side.abs().sum() > 0 for side in both)


def test_scores_are_the_cosines_margins_and_distances(recognizer: Recognizer, pair: Images) -> None:
    cosine = functional.cosine_similarity(recognizer.features(pair[0]), recognizer.features(pair[1]))
    embedding = recognizer.features(pair[1])  # not normalised
    for output, expected in (("cosine", cosine), ("margin", cosine - 0.2), ("distance", 1 - cosine)):
        head = CosineHead(recognizer, output=output)
        assert head(*pair).shape == (3,)
        torch.testing.assert_close(head(*pair), expected)
        torch.testing.assert_close(head(pair[0], embedding), expected)
    bound = CosineHead(recognizer.features, reference=embedding[1:2])
    torch.testing.assert_close(bound(pair[0])[1], cosine[1])
    assert CosineHead(nn.Flatten(), output="margin", threshold=0.5).threshold == 0.5


def test_integrated_gradients_of_a_probe_are_complete(recognizer: Recognizer, pair: Images) -> None:
    head, embedding = CosineHead(recognizer), recognizer.embed(pair[1])
    maps = IntegratedGradients(head).attribute(pair[0], additional_forward_args=embedding, n_steps=300)
    expected = head(pair[0], embedding) - head(torch.zeros_like(pair[0]), embedding)
    torch.testing.assert_close(maps.sum((1, 2, 3)), expected.detach(), atol=2e-3, rtol=0)


def test_two_images_with_one_baseline_start_from_a_cosine_of_one(
    recognizer: Recognizer, pair: Images
) -> None:
    maps = IntegratedGradients(CosineHead(recognizer)).attribute(pair, n_steps=300)
    total = sum(side.sum((1, 2, 3)) for side in maps)
    torch.testing.assert_close(total, (CosineHead(recognizer)(*pair) - 1).detach(), atol=2e-3, rtol=0)


def test_gradients_of_both_images_equal_those_of_each_alone(recognizer: Recognizer, pair: Images) -> None:
    both = captum_maps("Saliency", CosineHead(recognizer), pair, abs=False)
    for side, image, partner in ((both[0], *pair), (both[1], *pair[::-1])):
        leaf = image.clone().requires_grad_()
        cosine = functional.cosine_similarity(recognizer.features(leaf), recognizer.features(partner))
        (expected,) = torch.autograd.grad(cosine.sum(), leaf)
        torch.testing.assert_close(side, expected)


def rescale_reference(
    recognizer: Recognizer, image: Tensor, baseline: Tensor, cotangent: Tensor
) -> tuple[Tensor, Tensor]:
    """DeepLift's multipliers of one image, by the chain rule written out; and the raw embedding."""
    net = recognizer.network

    def layers(x: Tensor) -> list[Tensor]:
        before1 = net.bn1(net.conv1(recognizer.preprocess(x)))
        before2 = net.bn2(net.conv2(before1.relu()))
        return [before1, before1.relu(), before2, before2.relu()]

    at, ref = layers(image), layers(baseline)
    slope1 = (at[1] - ref[1]) / (at[0] - ref[0])
    slope2 = (at[3] - ref[3]) / (at[2] - ref[2])
    to_features = (cotangent @ net.fc.weight).view_as(at[3]) * slope2
    x2 = at[1].detach().requires_grad_()
    (to_conv2,) = torch.autograd.grad(net.bn2(net.conv2(x2)), x2, to_features)
    x1 = image.detach().requires_grad_()
    (to_image,) = torch.autograd.grad(net.bn1(net.conv1(recognizer.preprocess(x1))), x1, to_conv2 * slope1)
    return to_image * (image - baseline), net.fc(at[3].flatten(1))


@pytest.mark.parametrize("two_images", [False, True])
def test_deeplift_pairs_inputs_with_their_baselines(
    recognizer: Recognizer, pair: Images, two_images: bool
) -> None:
    """Captum halves a module's batch into inputs and baselines: the head must keep that order for two images."""
    black = torch.zeros_like(pair[0])
    head = CosineHead(recognizer)
    if two_images:
        maps = captum_maps("DeepLift", head, pair)[0]
    else:
        embedding = recognizer.embed(pair[1])
        maps = captum_maps("DeepLift", head, pair[0], additional_forward_args=embedding)
    raw = recognizer.features(pair[0]).detach().requires_grad_()
    cosine = functional.cosine_similarity(raw, recognizer.features(pair[1]).detach())
    (cotangent,) = torch.autograd.grad(cosine.sum(), raw)
    expected, features = rescale_reference(recognizer, pair[0], black, cotangent)
    torch.testing.assert_close(features, recognizer.features(pair[0]))
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-6, atol=1e-9)


def test_layer_maps_of_two_images_alternate(recognizer: Recognizer, pair: Images) -> None:
    head, layer = CosineHead(recognizer), recognizer.network.get_submodule("relu2")
    both = LayerGradCam(head, layer).attribute(pair)
    first = LayerGradCam(head, layer).attribute(pair[0], additional_forward_args=recognizer.embed(pair[1]))
    second = LayerGradCam(head, layer).attribute(pair[1], additional_forward_args=recognizer.embed(pair[0]))
    assert both.shape == (6, 1, 12, 10)
    torch.testing.assert_close(both[0::2], first)
    torch.testing.assert_close(both[1::2], second)


def test_further_arguments_reach_the_model(recognizer: Recognizer, pair: Images) -> None:
    gains = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def embed(images: Tensor, gain: Tensor, power: int) -> Tensor:
        return recognizer.features(images * gain.view(-1, 1, 1, 1)) ** power

    expected = functional.cosine_similarity(embed(pair[0], gains, 3), embed(pair[1], gains, 3))
    head = CosineHead(embed)
    torch.testing.assert_close(head(*pair, gains, 3), expected)
    torch.testing.assert_close(head(pair[0], embed(pair[1], gains, 3), gains, 3), expected)
    bound = CosineHead(embed, reference=embed(pair[1], gains, 3)[0])
    torch.testing.assert_close(bound(pair[0], gains, 3)[0], expected[0])


def test_flat_inputs_say_what_the_reference_is() -> None:
    model = nn.Linear(4, 4).double()
    probe, reference = torch.rand(2, 3, 4, dtype=torch.float64)
    as_image = functional.cosine_similarity(model(probe), model(reference))
    as_embedding = functional.cosine_similarity(model(probe), reference)
    torch.testing.assert_close(CosineHead(model)(probe, reference), as_image)
    torch.testing.assert_close(CosineHead(model, reference_kind="image")(probe, reference), as_image)
    torch.testing.assert_close(CosineHead(model, reference_kind="embedding")(probe, reference), as_embedding)


def test_mode_and_hooks_are_left_alone_also_after_errors(recognizer: Recognizer, pair: Images) -> None:
    assert not CosineHead(recognizer).training
    assert CosineHead(nn.Flatten()).training
    head = CosineHead(recognizer)
    with pytest.raises(InputError, match="24×20"):
        Saliency(head).attribute(
            pair[0][..., :10].clone().requires_grad_(), additional_forward_args=recognizer.embed(pair[1])
        )
    captum_maps("DeepLift", head, pair)
    assert not any(module._forward_hooks or module._backward_hooks for module in head.modules())
    assert "reference" not in dict(head.state_dict())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, p: CosineHead(r, output="angle"), "output"),
        (lambda r, p: CosineHead(r, reference_kind="face"), "reference_kind"),
        (lambda r, p: CosineHead(nn.Flatten(), output="margin"), "threshold"),
        (lambda r, p: CosineHead(r, reference=r.embed(p[1])), "one embedding"),
        (lambda r, p: CosineHead(r)(p[0]), "nothing to compare"),
        (lambda r, p: CosineHead(r)(p[0], r.embed(p[1])[:2]), "must be 3×6"),
        (lambda r, p: CosineHead(r)(p[0], r.embed(p[1])[:, :4]), "must be 3×6"),
        (lambda r, p: CosineHead(r)(p[0], p[1][:2]), "equal shapes"),
        (lambda r, p: CosineHead(r, reference_kind="image")(p[0], r.embed(p[1])), "equal shapes"),
    ],
)
def test_bad_references_are_refused(
    recognizer: Recognizer, pair: Images, call: Callable[[Recognizer, Images], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(recognizer, pair)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "FeatureAblation"])
def test_one_line_on_real_weights(real_pair: tuple[Tensor, Tensor], name: str) -> None:
    recognizer = load_recognizer("mobilefacenet_ms1m")
    probe, reference = real_pair
    keywords: dict[str, Any] = {"IntegratedGradients": {"n_steps": 4}}.get(name, {})
    if name == "FeatureAblation":
        keywords = {"feature_mask": torch.arange(112 * 112).reshape(1, 1, 112, 112) // 3136}
    embedding = recognizer.embed(reference)
    maps = captum_maps(name, CosineHead(recognizer), probe, additional_forward_args=embedding, **keywords)
    assert maps.shape == probe.shape
    assert bool(torch.isfinite(maps).all())
    assert maps.abs().sum() > 0


def test_deeplift_is_the_class_of_captum(recognizer: Recognizer, pair: Images) -> None:
    """Documented: the normalisation is taken by its gradient, so the sum is not the difference of the scores."""
    head, embedding = CosineHead(recognizer), recognizer.embed(pair[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maps, delta = DeepLift(head).attribute(
            pair[0], additional_forward_args=embedding, return_convergence_delta=True
        )
    difference = head(pair[0], embedding) - head(torch.zeros_like(pair[0]), embedding)
    torch.testing.assert_close(maps.sum((1, 2, 3)) - difference, delta.double(), atol=1e-6, rtol=0)
    assert delta.abs().max() > 1e-3
