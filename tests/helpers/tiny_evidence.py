"""Small evidence networks with random weights, for any module that has feature maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xfr_plugin.attr import EvidenceModel
from xfr_plugin.attr.amortised.model import EvidenceCard
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.features import layers_by_size
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.swaps.regions import FINE_REGIONS


def toy_evidence(
    function: nn.Module, images: Tensor, *arguments: Any, width: int = 8, seed: int = 4
) -> EvidenceModel:
    """Evidence network of a module, float64, that reads its smaller feature maps; it has never been trained."""
    images = images.to(next(function.parameters(), images))
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
        errors=dict.fromkeys(FINE_REGIONS, 0.01),
    )
    network = card.build_network()
    with torch.no_grad():
        network.weights.mul_(10)
        network.means.fill_(0.1)
    return EvidenceModel(network.double(), card)
