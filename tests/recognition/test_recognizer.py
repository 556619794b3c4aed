"""A recognizer from any network: preprocessing, shapes, threshold, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer, calibrate, load_recognizer


class Flat(nn.Module):
    """Returns its input as the embedding."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_any_network_becomes_a_recognizer_in_one_line() -> None:
    recognizer = Recognizer(Flat(), input_size=(2, 3), mean=0.5, std=0.25, threshold=0.3)
    images = torch.rand(4, 3, 2, 3)
    expected = (images - 0.5) / 0.25
    torch.testing.assert_close(recognizer.features(images), expected.flatten(1))
    torch.testing.assert_close(recognizer(images).norm(dim=1), torch.ones(4))
    assert recognizer.threshold == 0.3
    assert not recognizer.training


def test_channel_order_and_statistics_by_channel() -> None:
    recognizer = Recognizer(
        Flat(), input_size=(1, 1), mean=(0.1, 0.2, 0.3), std=(1, 2, 4), channel_order="BGR", threshold=0
    )
    rgb = torch.tensor([0.9, 0.6, 0.5]).view(1, 3, 1, 1)
    expected = torch.tensor([[(0.5 - 0.1) / 1, (0.6 - 0.2) / 2, (0.9 - 0.3) / 4]])
    torch.testing.assert_close(recognizer.features(rgb), expected)


def test_gradient_reaches_the_image(recognizer: Recognizer, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    probe = pair[0].clone().requires_grad_()
    recognizer(probe)[:, 0].sum().backward()
    assert probe.grad is not None
    assert probe.grad.abs().sum() > 0


def test_embed_in_batches_equals_one_batch(
    recognizer: Recognizer, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with torch.no_grad():
        expected = recognizer(pair[0])
    embedded = recognizer.embed(pair[0], batch_size=2)
    torch.testing.assert_close(embedded, expected)
    assert not embedded.requires_grad


@pytest.mark.parametrize("shape", [(3, 24, 20), (1, 3, 20, 24), (1, 1, 24, 20), (1, 3, 112, 112)])
def test_wrong_image_shapes_say_what_is_wanted(recognizer: Recognizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="N×3×24×20"):
        recognizer(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(
    ("images", "advice"),
    [
        (torch.rand(3, 24, 20), r"images\[None\]"),
        (torch.rand(2, 24, 20, 3), "permute"),
        (torch.rand(2, 1, 24, 20), "expand"),
        (torch.rand(2, 3, 20, 24), "align the photo"),
        (np.zeros((2, 3, 24, 20), np.float32), "not as ndarray: torch.from_numpy"),
        ([torch.rand(3, 24, 20)], "not as list"),
        (torch.zeros(2, 3, 24, 20, dtype=torch.uint8), "divide by 255"),
        (torch.full((2, 3, 24, 20), 200.0), "divide by 255"),
        (torch.rand(2, 3, 24, 20) - 0.5, "before mean and std"),
        (torch.full((2, 3, 24, 20), torch.nan), "not a number or infinite"),
    ],
)
def test_images_of_another_kind_are_refused_with_what_to_do(
    recognizer: Recognizer, images: torch.Tensor, advice: str
) -> None:
    with pytest.raises(InputError, match=advice):
        recognizer.embed(images)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (lambda images: images, "from_callable"),
        (nn.ReLU().state_dict(), "load_state_dict"),
        (nn.ReLU, "build it"),
    ],
)
def test_what_is_no_network_is_refused_with_what_to_do(given: nn.Module, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        Recognizer(given)
    with pytest.raises(InputError, match=r"wrap the network in Recognizer"):
        load_recognizer(nn.ReLU())  # type: ignore[arg-type]  # what people try


def test_networks_that_return_no_embedding_are_refused() -> None:
    recognizer = Recognizer(nn.Identity(), input_size=(4, 4), threshold=0)
    with pytest.raises(InputError, match="must be N×D"):
        recognizer(torch.zeros(2, 3, 4, 4))


def test_threshold_comes_from_the_calibration_unless_given(recognizer: Recognizer) -> None:
    calibration = calibrate([0.5, 0.6, 0.7] * 400, [0.0, 0.1, 0.2] * 400, "toy")
    calibrated = Recognizer(Flat(), calibration=calibration)
    assert calibrated.threshold == calibration.threshold
    assert calibrated.threshold_at(0.01) == calibration.threshold_at(0.01)
    assert Recognizer(Flat(), calibration=calibration, threshold=0.9).threshold == 0.9
    with pytest.raises(InputError, match="has no threshold"):
        _ = Recognizer(Flat()).threshold
    with pytest.raises(InputError, match="not calibrated"):
        recognizer.threshold_at(0.01)


@pytest.mark.parametrize(
    "arguments", [{"std": 0}, {"mean": (1, 2)}, {"input_size": (0, 4)}, {"channel_order": "GRB"}]
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Recognizer(Flat(), **arguments)
