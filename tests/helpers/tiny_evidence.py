"""Small evidence networks with random weights, for any module that has feature maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xfr_plugin.attr import EvidenceModel
from xfr_plugin.attr.amortised.model import EvidenceCard
from xfr_plugin.attr.amortised.network import EvidenceNetwork
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.features import layers_by_size
from xfr_plugin.reconstruction import fingerprint


def toy_evidence(
    function: nn.Module, images: Tensor, *arguments: Any, width: int = 8, seed: int = 4
) -> EvidenceModel:
    """Evidence network of a module, float64, that reads its smaller feature maps; it has never been trained."""
    images = images.to(next(function.parameters(), images).dtype)
    inner = function.network if isinstance(function, Recognizer) else function
    layers = layers_by_size(inner, images, *arguments, largest=images.shape[2])
    with torch.no_grad():
        dim = function(images, *arguments).shape[1]
    torch.manual_seed(seed)
    card = EvidenceCard(
        recognizer=function.name if isinstance(function, Recognizer) else "toy",
        recognizer_sha256=fingerprint(function) if isinstance(function, Recognizer) else "",
        layers=tuple(layers.items()),
        embedding_dim=dim,
        width=width,
        differs=0.2,
        alike=0.1,
    )
    return EvidenceModel(sharpened(card.build_network()).double(), card)


def sharpened(network: EvidenceNetwork) -> EvidenceNetwork:
    """The network with larger last layers, so that its answers differ from region to region."""
    with torch.no_grad():
        network.region.weight.mul_(4)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    return network
