"""Regional evidence: sums, what exchanging does, a fit that finds planted local directions, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_decoder import make_decoder
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.base.weights import read_metadata, write_weights
from xfr_plugin.errors import InputError, LayoutError
from xfr_plugin.faces import template_regions
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import RegionalEvidence, load_decoder, save_decoder
from xfr_plugin.reconstruction.regional import Spread
from xfr_plugin.swaps.regions import COARSE_REGIONS
from xfr_plugin.training.regional_fit import fit_regional


@pytest.fixture
def regional(recognizer: Recognizer) -> RegionalEvidence:
    found = make_decoder(recognizer).regional
    assert found is not None
    return found


@pytest.fixture
def units() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    a, b = functional.normalize(drawn, dim=2)
    return a, b


def test_parts_sum_to_the_score_and_to_two(regional: RegionalEvidence, units: tuple[Tensor, Tensor]) -> None:
    product, own = regional.terms(*units)
    torch.testing.assert_close(product.sum(dim=1), (units[0] * units[1]).sum(dim=1))
    torch.testing.assert_close(own.sum(dim=1), torch.full((5,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("spread", ["even", "typical"])
@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("distance", [0.0, 0.3, 1.0])
def test_evidence_sums_to_the_margin(
    regional: RegionalEvidence,
    units: tuple[Tensor, Tensor],
    distance: float,
    standardised: bool,
    spread: Spread,
) -> None:
    score = (units[0] * units[1]).sum(dim=1)
    evidence = regional.evidence(*units, 0.25, distance, standardised, spread)
    torch.testing.assert_close(evidence.sum(dim=1), score - 0.25)
    swapped = regional.evidence(units[1], units[0], 0.25, distance, standardised, spread)
    torch.testing.assert_close(evidence, swapped)
    relative = regional.evidence(*units, score, distance, standardised, spread)
    torch.testing.assert_close(relative.sum(dim=1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_an_even_margin_leaves_differences_to_pairs_of_the_same_score(
    regional: RegionalEvidence, units: tuple[Tensor, Tensor]
) -> None:
    score = (units[0] * units[1]).sum(dim=1)
    even, relative = (regional.evidence(*units, level) for level in (0.25, score))
    torch.testing.assert_close(even - relative, (score - 0.25)[:, None] * regional.areas.double())


class RegionReader(nn.Module):
    """An embedding of 16 channels, two for each exchanged region: its mean red and its mean green."""

    def __init__(self) -> None:
        super().__init__()
        labels = template_regions((56, 56))
        masks = np.stack([labels.mask(*names) for names in COARSE_REGIONS.values()]).astype(np.float64)
        self.register_buffer("masks", torch.from_numpy(masks / masks.sum(axis=(1, 2), keepdims=True)))

    def forward(self, images: Tensor) -> Tensor:
        means = torch.einsum("nchw,rhw->nrc", images[:, :2], self.masks)
        embedding: Tensor = means.flatten(1)
        return embedding


class RegionPainter(nn.Module):
    """Paints each region with its two channels: the ideal decoder of `RegionReader`."""

    def __init__(self, reader: RegionReader) -> None:
        super().__init__()
        self.areas = (reader.masks > 0).float()

    def forward(self, embeddings: Tensor) -> Tensor:
        values = functional.pad(embeddings.unflatten(1, (8, 2)), (0, 1))
        faces: Tensor = torch.einsum("nrc,rhw->nchw", values, self.areas)
        return faces


@pytest.fixture(scope="module")
def fitted() -> tuple[Recognizer, RegionalEvidence]:
    """Fitted on faces whose regions have random colours, in a network where each channel is one region's."""
    reader = RegionReader()
    recognizer = Recognizer(reader, input_size=(56, 56), threshold=0.2).double()
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(60, 8, 3, generator=generator, dtype=torch.float64)
    # features of one colour would be lost in matching the seam's: texture keeps apart what is exchanged
    faces = torch.einsum("nrc,rhw->nchw", colours, (reader.masks > 0).double())
    images = (faces * 255).to(torch.uint8)
    people = torch.arange(60) // 2
    embeddings = torch.stack([recognizer.embed(x / 255) for x in (images, images.flip(3))], dim=1)
    found = fit_regional(
        recognizer, RegionPainter(reader), images, people, embeddings.float(), exchanges=200, seed=1
    )
    return recognizer, found


def test_the_fit_finds_which_channels_are_whose(fitted: tuple[Recognizer, RegionalEvidence]) -> None:
    shifts = fitted[1].shifts.diagonal(dim1=1, dim2=2).unflatten(1, (8, 2)).mean(dim=2)
    # the colour of a region's surroundings is matched, so a blend moves its own channels most
    assert (shifts.argmax(dim=1) == torch.arange(8)).sum() >= 7


def test_the_decoder_says_where_a_region_is_shown(fitted: tuple[Recognizer, RegionalEvidence]) -> None:
    labels = template_regions((56, 56))
    masks = [torch.from_numpy(labels.mask(*names)) for names in COARSE_REGIONS.values()]
    density = torch.tensor([[values[mask].mean() for mask in masks] for values in fitted[1].maps])
    assert density.argmax(dim=1).tolist() == list(range(8))


def test_a_fit_needs_people(fitted: tuple[Recognizer, RegionalEvidence]) -> None:
    reader = RegionReader()
    images = torch.zeros(4, 3, 56, 56, dtype=torch.uint8)
    with pytest.raises(InputError, match="two people"):
        fit_regional(
            fitted[0], RegionPainter(reader), images, torch.zeros(4).long(), torch.rand(4, 2, 16), exchanges=4
        )


def test_shapes_must_fit(regional: RegionalEvidence) -> None:
    with pytest.raises(InputError, match="does not fit together"):
        RegionalEvidence(regional.shifts, regional.moments[1:], regional.maps, regional.areas)


def test_regional_evidence_is_kept_in_files(
    recognizer: Recognizer, tmp_path: Path, units: tuple[Tensor, Tensor]
) -> None:
    decoder = make_decoder(recognizer)
    path = tmp_path / "d.safetensors"
    save_decoder(decoder, path)
    again = load_decoder(path).regional
    assert again is not None
    assert decoder.regional is not None
    single = [x.float() for x in units]
    torch.testing.assert_close(
        again.evidence(single[0], single[1], 0.2),
        decoder.regional.evidence(*units, 0.2).float(),
        atol=5e-3,
        rtol=1e-2,
    )
    torch.testing.assert_close(
        again.evidence(single[0], single[1], 0.2).sum(1), (single[0] * single[1]).sum(1) - 0.2
    )
    tensors = load_file(path)
    del tensors["regional.areas"]
    write_weights(path, tensors, read_metadata(path))
    with pytest.raises(LayoutError, match="part of its regional"):
        load_decoder(path)
