"""Evidence networks with what belongs to them: files, the recognizer they were trained for, and the rule.

From the answers of a network to the evidence of each region. Of a pair it is asked which hypothesis is true: one of R
regions differs, one is alike, or neither. The logits of both questions, each less that of its "none", and 0 for
"neither", have one softmax, so that only one can be true. With its posterior p, the share A_r of the face that a
region covers, and the mean effect e of the plantings of a hypothesis on the score,

    b_r = R A_r (p_r(alike) e(alike) − p_r(differs) e(differs)).

What that leaves of the margin, t = s − τ − Σ b, lies evenly where a region stands out. As far as "neither" is
likely, q = max(0, (p(neither) − .3) / .7), it is divided by the changes of the score that the network expects, m: the
fall with a stranger's region where t > 0, else the rise with the partner's. They count the less, the likelier the
region would contradict them, by the posterior p̄ of differing where t > 0, else of being alike:

    c_r = b_r + t ((1 − q) A_r + q n_r / Σ n),    n_r = m_r (1 − p̄_r / max p̄),    Σ c = s − τ.

The rule was chosen on people that take part neither in training nor in results.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TypeAlias

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from xfr_plugin.attr.amortised.network import Answers, EvidenceNetwork, hypothesis_logits
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
from xfr_plugin.recognition.folding import fold_batchnorm
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

_CARD_KEY = "evidence"
_NEITHER = 0.3
_EVEN = 1e-3  # where no change of the score is expected, evenly


class EvidenceCard(Document):
    """Everything about an evidence network but its weights.

    Attributes:
        recognizer: name of the recognizer whose feature maps it reads.
        recognizer_sha256: `fingerprint` of that recognizer.
        layers: of the recognizer's network, with their channels, from the largest map to the smallest.
        embedding_dim: length of the embedding.
        width: channels of the network.
        differs: mean effect on the score of the plantings that it learned to find in genuine pairs.
        alike: the same of impostor pairs.
        provenance: where the weights come from.
        figures: measurements by name.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    recognizer: str
    recognizer_sha256: str
    layers: tuple[tuple[str, int], ...] = Field(min_length=1, max_length=16)
    embedding_dim: int = Field(gt=0, le=1 << 16)
    width: int = Field(gt=0, le=1024)
    differs: float = Field(gt=0, le=2)
    alike: float = Field(gt=0, le=2)
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
        self._folded: EvidenceNetwork | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are read, in the recognizer's network."""
        return tuple(name for name, _ in self.card.layers)

    @property
    def folded(self) -> EvidenceNetwork:
        """The same function with BatchNorm folded into convolutions, which takes less time on a CPU."""
        if self._folded is not None:
            return self._folded
        network = copy.deepcopy(self.network)
        for name in ("tower", "compare"):
            setattr(network, name, fold_batchnorm(network.get_submodule(name)))
        self._folded = network
        return network

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

    def evidence(self, answers: Answers, areas: Tensor, margins: Tensor) -> Tensor:
        """What each region contributes to the margin; see the module.

        Args:
            answers: of the network, for N faces.
            areas: pixels of each region, N×R; 0 of one that is absent.
            margins: s − τ, N.

        Returns:
            c, N×R, which sums to the margin.
        """
        present = areas > 0
        shares = areas / areas.sum(dim=1, keepdim=True)
        differs, alike, neither = _posteriors(answers)
        effect = alike * self.card.alike - differs * self.card.differs
        stands_out = effect * shares * present.sum(dim=1, keepdim=True)
        rest = (margins - stands_out.sum(dim=1))[:, None]
        against = torch.where(rest > 0, differs, alike)
        doubt = against / against.amax(dim=1, keepdim=True).clamp_min(_EVEN)
        expected = torch.where(rest > 0, answers.loss, answers.gain).clamp_min(0) * (1 - doubt) * present
        expected = expected + _EVEN * shares
        unsure = ((neither - _NEITHER) / (1 - _NEITHER)).clamp_min(0)
        expected = expected / expected.sum(dim=1, keepdim=True)
        return stands_out + rest * ((1 - unsure) * shares + unsure * expected)


EvidenceSource: TypeAlias = str | os.PathLike[str] | EvidenceModel | None
"""An evidence network, its file, or None for the one that ships for the recognizer."""


def _posteriors(answers: Answers) -> tuple[Tensor, Tensor, Tensor]:
    """Posteriors of "this region differs" N×R, "this region is alike" N×R, and neither N×1."""
    count = answers.gain.shape[1]
    likely = hypothesis_logits(answers).softmax(dim=1)
    return likely[:, :count], likely[:, count:-1], likely[:, -1:]


def save_evidence(model: EvidenceModel, path: str | os.PathLike[str]) -> None:
    """Write an evidence network in 16 bits (normalisation in 32) with its card, whole or not at all.

    Raises:
        InputError: the suffix is not `.safetensors`.
    """
    state = halved(model.network, lambda _, value: value.ndim > 1)
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
        WeightsError: the file is missing, damaged, no evidence network, or (`LayoutError`) does not fit its card.
        InputError: it was trained for another recognizer, or the device does not exist here.
    """
    path = Path(source)
    state, metadata = read_weights(path)
    if _CARD_KEY not in metadata:
        raise WeightsError(f"{path.name} holds no evidence network: train one with `xfr train evidence`")
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
