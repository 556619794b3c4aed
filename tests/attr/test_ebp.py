"""Excitation backpropagation for pairs: against dense matrices, its variants, and networks it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr.peers.ebp import Ebp
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.recognition import Recognizer

Images = tuple[Tensor, Tensor]


class Positive(nn.Module):
    """Bias-free, with activations ≥ 0: where the published rule is defined as it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * 3 * 2, 5, bias=False)
        self.out = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.fc(self.relu(self.conv(images)).flatten(1)))


@pytest.fixture
def positive() -> tuple[Positive, Images]:
    torch.manual_seed(0)
    network = Positive().double().eval()
    with torch.no_grad():
        network.fc.weight += 0.1  # so that every embedding is positive
    probe, reference = torch.rand(2, 2, 3, 5, 4, dtype=torch.float64)
    return network, (probe, reference)


def excited(weights: Tensor, activations: Tensor, probability: Tensor) -> Tensor:
    """P(i) = Σ_j a_i w⁺_ij / (Σ_i a_i w⁺_ij) P(j), Zhang et al. 2016, equation 4; weights outputs × inputs."""
    positive = weights.clamp(min=0) * activations
    totals = positive.sum(1, keepdim=True)
    return (torch.where(totals > 0, positive / totals, 0) * probability[:, None]).sum(0)


def by_matrices(network: Positive, image: Tensor, prior: Tensor) -> Tensor:
    hidden = network.relu(network.conv(image[None]))[0].flatten().detach()
    units = torch.eye(image.numel(), dtype=image.dtype).view(-1, *image.shape)
    conv = network.conv(units).detach().flatten(1).T
    middle = excited(network.fc.weight.detach(), hidden, prior)
    return excited(conv, image.flatten(), middle).view_as(image)


def test_plain_ebp_against_dense_matrices(positive: tuple[Positive, Images]) -> None:
    network, pair = positive
    probe, reference = (functional.normalize(network(side).detach(), dim=1) for side in pair)
    prior = probe * reference  # ≥ 0: all channels agree
    found = Ebp(network, 0.2).attribute(pair)
    for n in range(2):
        expected = by_matrices(network, pair[0][n], prior[n])
        torch.testing.assert_close(found[0][n], expected, rtol=1e-4, atol=1e-9)
        assert float(found[0][n].sum()) == pytest.approx(float(prior[n].sum()), rel=1e-4)


def test_contrast_is_the_difference_of_two_normalised_maps(positive: tuple[Positive, Images]) -> None:
    network, pair = positive
    others = torch.rand(3, 5, dtype=torch.float64)
    units = [functional.normalize(network(side).detach(), dim=1) for side in pair]
    mean = functional.normalize(others, dim=1).mean(0)
    maps = [
        by_matrices(network, pair[0][0], prior).sum(0)
        for prior in (units[0][0] * units[1][0], units[0][0] * mean)
    ]
    mate, non_mate = (grey / grey.sum() for grey in maps)
    found = Ebp(network, 0.2, contrast="contrastive", non_mates=others).attribute(pair)[0]
    torch.testing.assert_close(found[0].sum(0), mate - non_mate, rtol=1e-3, atol=1e-7)
    kept = (
        Ebp(network, 0.2, contrast="truncated", non_mates=others, arguments="for")
        .attribute(pair)[0][0]
        .sum(0)
    )
    values = mate.flatten().sort().values
    level = values[(values.cumsum(0) <= 0.2).sum()]
    expected = torch.where(mate >= level, (mate - non_mate).clamp(min=0), 0)
    torch.testing.assert_close(kept, expected, rtol=1e-3, atol=1e-7)


def test_an_identical_pair_has_nothing_against_it(recognizer: Recognizer, pair: Images) -> None:
    maps, _ = Ebp(recognizer).attribute((pair[0], pair[0]))
    assert (maps >= 0).all()


def test_bgr_recognizers_get_maps_in_the_order_of_the_images(recognizer: Recognizer, pair: Images) -> None:
    network = recognizer.network
    flipped = Recognizer(network, input_size=(24, 20), threshold=0.2, channel_order="BGR").double()
    expected = Ebp(Recognizer(network, input_size=(24, 20), threshold=0.2).double()).attribute(pair)[0]
    found = Ebp(flipped).attribute((pair[0].flip(1), pair[1].flip(1)))[0]
    torch.testing.assert_close(found.flip(1), expected)


def test_networks_without_rules_are_refused_by_name() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten()).eval()
    with pytest.raises(InputError, match=r"1 \(GroupNorm\)"):
        Ebp(network, 0.2)
    with pytest.raises(InputError, match="module"):
        Ebp(lambda images: images.flatten(1), 0.2)
    with pytest.raises(UnknownNameError, match="composite"):
        Ebp(network, 0.2, composite="epsilon")


def test_non_mates_must_fit(recognizer: Recognizer, pair: Images) -> None:
    with pytest.raises(InputError, match="K×D"):
        Ebp(recognizer, non_mates=torch.zeros(2, 3, 4))
    with pytest.raises(InputError, match="channels"):
        Ebp(recognizer, contrast="contrastive", non_mates=[[1.0, 2.0]]).attribute(pair)
