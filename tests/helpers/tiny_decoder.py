"""Small decoders with random weights: for the recognizer of `conftest`, and for any function of faces."""

from __future__ import annotations

import torch
from torch import nn

from helpers.small_net import give_statistics
from xfr_plugin.channels import channel_atlas
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.reconstruction import Decoder, DecoderCard, RegionalEvidence


def make_decoder(recognizer: Recognizer, output_size: tuple[int, int] = (12, 10)) -> Decoder:
    """Decoder to 12×10 pixels, float64, whose channels are unlike each other; its atlas is of eight embeddings."""
    torch.manual_seed(2)
    card = DecoderCard(
        name="tiny",
        recognizer=recognizer.name,
        recognizer_sha256=fingerprint(recognizer),
        embedding_dim=6,
        input_size=recognizer.input_size,
        output_size=output_size,
        widths=(6, 5, 4),
    )
    network = card.build_network()
    give_statistics(network)
    mean = 0.1 * torch.randn(6)
    flat = torch.full((6, *output_size), 1 / (output_size[0] * output_size[1]))
    regional = random_regional(6, output_size)
    decoder = Decoder(network, card, flat, mean, torch.rand(3, *output_size), regional).double()
    units = nn.functional.normalize(torch.randn(8, 6, dtype=torch.float64), dim=1)
    decoder.atlas = channel_atlas(decoder, units).double()
    return decoder


def toy_decoder(dim: int, input_size: tuple[int, int]) -> Decoder:
    """Decoder of any function from faces of a size to embeddings of a length; float64."""
    torch.manual_seed(3)
    card = DecoderCard(
        name="toy",
        recognizer="toy",
        recognizer_sha256="",
        embedding_dim=dim,
        input_size=input_size,
        output_size=(8, 8),
        widths=(4, 4, 4),
    )
    atlas = torch.rand(dim, 8, 8)
    regional = random_regional(dim, (8, 8))
    return Decoder(
        card.build_network(), card, atlas, torch.rand(dim) / 9, torch.rand(3, 8, 8), regional
    ).double()


def random_regional(dim: int, output_size: tuple[int, int], regions: int = 3) -> RegionalEvidence:
    """Regional evidence without meaning whose parts are unlike each other."""
    shifts = 0.3 * torch.randn(regions, dim, dim) + torch.eye(dim) / regions
    moments = 0.1 * torch.randn(regions, 7)
    moments[:, 4:] = torch.tensor([0.02, 0.001, 0.03]) * (1 + torch.rand(regions, 1))
    return RegionalEvidence(shifts, moments, torch.rand(regions, *output_size), torch.rand(regions) + 0.1)
