"""Decoder network and losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import DecoderNetwork
from xfr_plugin.training import losses


@pytest.mark.parametrize("size", [(56, 56), (80, 60), (13, 9)])
def test_a_decoder_paints_faces_of_its_size(size: tuple[int, int]) -> None:
    network = DecoderNetwork(5, size, (8, 8, 8)).eval()
    with torch.no_grad():
        faces = network(torch.randn(2, 5))
    assert faces.shape == (2, 3, *size)
    assert float(faces.min()) >= 0
    assert float(faces.max()) <= 1


@pytest.mark.parametrize("values", [(0, (56, 56)), (4, (7, 56)), (4, (56, 56), (8, 8, 0))])
def test_decoders_that_make_no_sense_are_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="cannot be built"):
        DecoderNetwork(*values)


def test_pixel_and_gradient_losses_measure_differences() -> None:
    images, faces = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.25)
    assert float(losses.pixel_loss(images, faces)) == pytest.approx(0.25)
    assert float(losses.gradient_loss(images, faces)) == 0
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 3, 4, 4)
    assert float(losses.gradient_loss(stripes, images)) == pytest.approx(0.5)


class MeanColour(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def test_identity_loss_is_one_minus_the_cosine_and_reaches_the_images() -> None:
    recognizer = Recognizer(MeanColour(), input_size=(4, 4), mean=0.0, std=1.0)
    images = torch.zeros(1, 3, 4, 4)
    images[:, 0] = 1
    images.requires_grad_()
    value = losses.identity_loss(recognizer, images, torch.tensor([[0.6, 0.8, 0.0]]))
    assert float(value.detach()) == pytest.approx(0.4)
    value.backward()
    assert images.grad is not None
    assert float(images.grad[:, 1].mean()) < 0


def test_views_are_shifted_by_whole_pixels() -> None:
    images = torch.arange(36.0).view(1, 1, 6, 6).expand(1, 3, 6, 6)
    views = {
        tuple(losses.shifted_views(images, 1, torch.Generator().manual_seed(seed))[0, 0, 2, 2:4].tolist())
        for seed in range(30)
    }
    assert views == {(14.0 + r + c, 15.0 + r + c) for r in (-6, 0, 6) for c in (-1, 0, 1)}
    assert losses.shifted_views(images, 0, torch.Generator()) is images
