"""A small decoder with random weights for the recognizer of `conftest`."""

from __future__ import annotations

import torch
from torch import nn

from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import Decoder, DecoderCard, channel_atlas, fingerprint


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
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    mean = 0.1 * torch.randn(6)
    flat = torch.full((6, *output_size), 1 / (output_size[0] * output_size[1]))
    decoder = Decoder(network, card, flat, mean, torch.rand(3, *output_size)).double()
    units = nn.functional.normalize(torch.randn(8, 6, dtype=torch.float64), dim=1)
    decoder.atlas = channel_atlas(decoder, units).double()
    return decoder
