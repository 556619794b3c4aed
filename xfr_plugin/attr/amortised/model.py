"""Evidence networks with what belongs to them: their files, and the recognizer that they were trained for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from xfr_plugin.attr.amortised.network import EvidenceNetwork, RegionFeatures
from xfr_plugin.base.devices import check_device
from xfr_plugin.base.documents import Document
from xfr_plugin.base.randomness import seeded
from xfr_plugin.base.weights import (
    halved,
    load_halved_into,
    parse_card,
    read_weights,
    shipped_documents,
    write_weights,
)
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.recognition.fingerprint import check_fingerprint, fingerprint
from xfr_plugin.recognition.recognizer import Provenance, Recognizer

__all__ = [
    "EvidenceCard",
    "EvidenceModel",
    "EvidenceSource",
    "evidence_file",
    "find_evidence",
    "load_evidence",
    "save_evidence",
]

_CARD_KEY = "region_effects"
_OLD_KEY = "evidence"


class EvidenceCard(Document):
    """Everything about an evidence network but its weights.

    Attributes:
        recognizer: name of the recognizer whose feature maps it reads.
        recognizer_sha256: `fingerprint` of that recognizer.
        layers: of the recognizer's network, with their channels, from the largest map to the smallest.
        embedding_dim: length of the embedding.
        width: directions that the network keeps.
        errors: by how much predicted values of each region miss exact ones, root mean square over pairs of people
            who were held out.
        provenance: where the weights come from.
        figures: measurements by name.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    recognizer: str
    recognizer_sha256: str
    layers: tuple[tuple[str, int], ...] = Field(min_length=1, max_length=16)
    embedding_dim: int = Field(gt=0, le=1 << 16)
    width: int = Field(gt=0, le=4096)
    errors: dict[str, float] = Field(default={})
    provenance: Provenance = Provenance()
    figures: dict[str, float | str] = Field(default={})

    def build_network(self) -> EvidenceNetwork:
        """Build the network, with untrained weights."""
        return EvidenceNetwork([count for _, count in self.layers], self.embedding_dim, self.width)


class EvidenceModel:
    """A trained evidence network and its card.

    Args:
        network: put into evaluation mode.
        card: what it was trained for.
    """

    def __init__(self, network: EvidenceNetwork, card: EvidenceCard) -> None:
        self.network = network.eval().requires_grad_(False)
        self.card = card

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are read, in the recognizer's network."""
        return tuple(name for name, _ in self.card.layers)

    def check_recognizer(self, recognizer: Recognizer) -> None:
        """Make sure that this network was trained for a recognizer.

        Raises:
            InputError: it was trained for another one.
        """
        advice = "train one with `xfr train evidence --recognizer …`, or use 'leave_one_out'"
        card = self.card
        check_fingerprint(
            recognizer, "this evidence network", card.recognizer, card.recognizer_sha256, advice
        )

    @torch.no_grad()
    def effects(self, known: RegionFeatures) -> Tensor:
        """What each region of N faces does to their embeddings, N×R×D in 64 bits."""
        effects: Tensor = self.network(known.to(self.network.means))
        return effects.double()


EvidenceSource: TypeAlias = str | os.PathLike[str] | EvidenceModel | None
"""An evidence network, its file, or None for the one that ships for the recognizer."""


def save_evidence(model: EvidenceModel, path: str | os.PathLike[str]) -> None:
    """Write an evidence network in 16 bits with its card, whole or not at all.

    Raises:
        InputError: the suffix is not `.safetensors`.
    """
    state = halved(model.network, lambda *_: True)
    write_weights(path, state, {_CARD_KEY: model.card.model_dump(mode="json")})


def load_evidence(
    source: str | os.PathLike[str],
    recognizer: Recognizer | None = None,
    device: str | torch.device = "cpu",
) -> EvidenceModel:
    """Load an evidence network from a file.

    Args:
        source: path.
        recognizer: whose feature maps are to be read; the network must be its own.
        device: where to compute.

    Raises:
        WeightsError: the file is missing, damaged, no evidence network or one of an old kind, or (`LayoutError`) does
            not fit its card.
        InputError: it was trained for another recognizer, or the device does not exist here.
    """
    path = Path(source)
    state, metadata = read_weights(path)
    if _CARD_KEY not in metadata:
        what = (
            "an evidence network of an old kind, taught by planted regions"
            if _OLD_KEY in metadata
            else "none"
        )
        raise WeightsError(
            f"{path.name} holds no evidence network but {what}: train one with `xfr train evidence`"
        )
    card = parse_card(EvidenceCard, metadata[_CARD_KEY], path.name)
    with seeded(0):  # a network is born with random weights
        network = card.build_network()
    load_halved_into(network, state, path.name)
    model = EvidenceModel(network.to(check_device(device)), card)
    if recognizer is not None:
        model.check_recognizer(recognizer)
    return model


def evidence_file(recognizer: Recognizer) -> Path | None:
    """File of the evidence network that ships for this recognizer, if one does."""
    cards = {
        path: parse_card(EvidenceCard, document, path.name)
        for path, document in shipped_documents(_CARD_KEY).items()
    }
    if not any(card.recognizer == recognizer.name for card in cards.values()):
        return None
    wanted = fingerprint(recognizer)
    return next((path for path, card in cards.items() if card.recognizer_sha256 == wanted), None)


def find_evidence(recognizer: Recognizer) -> EvidenceModel:
    """The evidence network that ships with the package for this recognizer, on the recognizer's device.

    Raises:
        InputError: there is none.
    """
    path = evidence_file(recognizer)
    if path is None:
        raise InputError(
            f"no evidence network ships for recognizer {recognizer.name!r}: use method 'leave_one_out', or train "
            "one with `xfr train evidence --recognizer …` and pass it as network=…"
        )
    return load_evidence(path, device=recognizer.device)
