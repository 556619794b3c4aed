"""Captum to the letter: deltas where maps promise a sum, one embedding under its tools, pixels of another scale."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel
from captum.metrics import sensitivity_max
from torch import Tensor, nn

from xfr_plugin.attr import METHODS, CosineHead, PairDeepLift, PairIntegratedGradients, get_method
from xfr_plugin.attr._base.baselines import baseline_images
from xfr_plugin.attr._base.pair import PairAttribution
from xfr_plugin.base.rows import one_row
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer

Images = tuple[Tensor, Tensor]


def built(name: str, recognizer: Recognizer) -> PairAttribution:
    """A method on its quick options; skipped where it needs a decoder or more that the recognizer does not have."""
    if not METHODS[name].serves(recognizer):
        pytest.skip(f"{name} does not serve a recognizer of the tests")
    return get_method(name).build(recognizer, 0.2, **METHODS[name].trial_options)


@pytest.mark.parametrize("baseline", ["black", "blur"])
@pytest.mark.parametrize("cls", [PairIntegratedGradients, PairDeepLift])
def test_the_delta_is_what_the_map_misses_of_the_difference_of_cosines(
    recognizer: Recognizer, pair: Images, cls: Any, baseline: Any
) -> None:
    attribution = cls(recognizer, baseline=baseline)
    assert attribution.has_convergence_delta()
    partner = recognizer.embed(pair[1])
    maps, delta = attribution.attribute(
        pair[0], additional_forward_args=partner, return_convergence_delta=True
    )
    without = recognizer(baseline_images(pair[0], baseline))
    differences = ((recognizer(pair[0]) - without) * partner).sum(1).detach()
    torch.testing.assert_close(delta, maps.flatten(1).sum(1) - differences)
    torch.testing.assert_close(attribution.attribute(pair[0], additional_forward_args=partner), maps)


def test_the_delta_of_integrated_gradients_is_captums(recognizer: Recognizer, pair: Images) -> None:
    partner = recognizer.embed(pair[1])
    _, delta = PairIntegratedGradients(recognizer, n_steps=8).attribute(
        pair[0], additional_forward_args=partner, return_convergence_delta=True
    )
    head = CosineHead(recognizer, reference_kind="embedding")
    _, expected = IntegratedGradients(head).attribute(
        pair[0], additional_forward_args=partner, n_steps=8, return_convergence_delta=True
    )
    torch.testing.assert_close(delta, expected)


@pytest.mark.parametrize("name", list(METHODS))
def test_one_embedding_for_all_under_sensitivity_max(recognizer: Recognizer, pair: Images, name: str) -> None:
    if METHODS[name].needs_both_images:
        pytest.skip("explains no probe against an embedding")
    attribution = built(name, recognizer)
    vector = recognizer.embed(pair[1])[0]
    for reference in (vector, vector[None].expand(3, -1)):
        torch.manual_seed(0)
        found = sensitivity_max(
            attribution.attribute, pair[0], additional_forward_args=reference, n_perturb_samples=4
        )
        assert found.shape == (3,)
        assert bool(found.isfinite().all())
        if reference is vector:
            expected = found
    torch.testing.assert_close(found, expected)


def test_a_repeated_row_is_told_from_one_of_another_length() -> None:
    row = torch.rand(1, 6)
    assert torch.equal(one_row(row.repeat(1, 3), 6), row)
    assert torch.equal(one_row(row.repeat_interleave(3, dim=1), 6), row)
    assert one_row(row, 6) is row
    longer = torch.rand(1, 12)
    assert one_row(longer, 6) is longer


@pytest.mark.parametrize("name", list(METHODS))
def test_pixels_of_another_scale_are_one_clear_error(recognizer: Recognizer, pair: Images, name: str) -> None:
    attribution = built(name, recognizer)
    with pytest.raises(InputError, match=r"0…1, got .*: divide by 255"):
        attribution.attribute((255 * pair[0], 255 * pair[1]))
    with pytest.raises(InputError, match="float"):
        attribution.attribute(tuple((255 * side).to(torch.uint8) for side in pair))


@pytest.mark.parametrize("name", list(METHODS))
def test_float64_images_of_a_float32_recognizer_are_followed(
    recognizer: Recognizer, pair: Images, name: str
) -> None:
    attribution = built(name, recognizer.float())
    maps = attribution.attribute(pair)
    assert maps[0].dtype == torch.float64
    expected = attribution.attribute((pair[0].float(), pair[1].float()))[0]
    assert expected.dtype == torch.float32
    torch.testing.assert_close(maps[0].float(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", list(METHODS))
def test_pixels_that_are_no_numbers_are_one_clear_error(
    recognizer: Recognizer, pair: Images, name: str, value: float
) -> None:
    damaged = pair[0].clone()
    damaged[0, 1, 2, 3] = value
    with pytest.raises(InputError, match="not a number, or infinite"):
        built(name, recognizer).attribute((damaged, pair[1]))


MODES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(METHODS))
def test_a_callers_mode_changes_no_map(recognizer: Recognizer, pair: Images, name: str, mode: str) -> None:
    attribution, inputs = built(name, recognizer.float()), (pair[0].float(), pair[1].float())
    expected = attribution.attribute(inputs)
    with MODES[mode]():
        found = attribution.attribute(tuple(side.clone() for side in inputs))
    for side, own in zip(found, expected, strict=True):
        torch.testing.assert_close(side, own, rtol=1e-4, atol=1e-5 * float(own.abs().max()))


def test_the_noise_that_captum_adds_unless_told_otherwise_is_followed(
    recognizer: Recognizer, pair: Images
) -> None:
    torch.manual_seed(0)
    maps = NoiseTunnel(get_method("xssab").build(recognizer, 0.2)).attribute(
        pair[0], nt_samples=9, additional_forward_args=recognizer.embed(pair[1])
    )
    assert bool(maps.isfinite().all())


@pytest.mark.parametrize(
    "name", [name for name in METHODS if METHODS[name].needs in ("gradient", "composite")]
)
def test_what_torch_compile_gave_has_the_maps_of_the_network(
    recognizer: Recognizer, pair: Images, name: str
) -> None:
    network, options = recognizer.network, METHODS[name].trial_options
    compiled = torch.compile(network, backend="eager")
    expected = METHODS[name].cls(network, 0.2, **options).attribute(pair)
    for side, own in zip(METHODS[name].cls(compiled, 0.2, **options).attribute(pair), expected, strict=True):
        torch.testing.assert_close(side, own)


def test_smoothgrad_of_a_network_of_half_precision(recognizer: Recognizer, pair: Images) -> None:
    network = copy.deepcopy(recognizer.network).to(torch.bfloat16)
    maps = get_method("smoothgrad").cls(network, 0.2).attribute(tuple(side.bfloat16() for side in pair))
    assert all(side.dtype == torch.bfloat16 and bool(side.isfinite().all()) for side in maps)


class Pooling(nn.Module):
    """A recognizer of images of any size, as those that end in a global mean are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.flatten = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten()
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 6)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.linear(self.flatten(self.pool(self.relu(self.conv(images)))))
        return found


@pytest.mark.parametrize("side", [1, 2, 3, 5])
@pytest.mark.parametrize("name", list(METHODS))
def test_maps_of_tiny_images_are_finite_or_an_error(name: str, side: int) -> None:
    network, (probe, reference) = Pooling().eval(), torch.rand(2, 1, 3, side, side)
    try:
        maps = METHODS[name].cls(network, 0.2, **METHODS[name].trial_options).attribute((probe, reference))
    except InputError:
        return
    assert all(bool(side.isfinite().all()) for side in maps)
