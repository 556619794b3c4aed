"""From a name, a file or a URL to a recognizer.

A *card* (JSON) says everything about a recognizer but its weights. Cards of published recognizers ship in
`zoo_data/`; a safetensors file of ours carries its own card in its metadata, as do the *embedded*
recognizers, whose weights ship in `xfr_plugin/models/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from xfr_plugin.base.devices import check_device
from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import shown
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.randomness import seeded
from xfr_plugin.base.weights import (
    check_sha256,
    load_state_dict_into,
    parse_card,
    read_weights,
    sha256_of,
    shipped_documents,
    write_weights,
)
from xfr_plugin.errors import InputError, UnknownNameError, WeightsError
from xfr_plugin.recognition.calibration import Calibration
from xfr_plugin.recognition.contract import InputContract, input_contract
from xfr_plugin.recognition.download import cached_weights, download_weights
from xfr_plugin.recognition.layouts import fit_architecture
from xfr_plugin.recognition.loading import from_card, from_factory, is_factory
from xfr_plugin.recognition.networks import build_network, get_architecture
from xfr_plugin.recognition.published import contract_of_file
from xfr_plugin.recognition.recognizer import ChannelOrder, Provenance, Recognizer

__all__ = [
    "RecognizerCard",
    "WeightFile",
    "data_root",
    "list_recognizers",
    "load_recognizer",
    "save_recognizer",
    "zoo_card",
]

_CARD_KEY = "recognizer"
_MODEL_FILES = (".onnx", ".xml", ".json")


class WeightFile(Document):
    """A published weight file: its name under `XFR_DATA/weights` and in the cache, and its origin."""

    file: str
    url: str | None = None
    sha256: str


class RecognizerCard(InputContract):
    """Everything about a recognizer but its weights.

    `figures` are measurements, by name; `region_shares` are told at `Recognizer`.
    """

    name: str
    architecture: str
    provenance: Provenance = Provenance()
    calibration: Calibration | None = None
    figures: dict[str, int | float | str] = Field(default_factory=dict)
    region_shares: dict[str, dict[str, float]] = Field(default_factory=dict)
    weights: WeightFile | None = None


def data_root() -> Path:
    """Folder of real weights and faces: the environment variable `XFR_DATA`, or `../shared/data`."""
    return Path(os.environ.get("XFR_DATA", "../shared/data"))


def list_recognizers() -> list[str]:
    """Names that `load_recognizer` knows."""
    return sorted(_zoo())


def zoo_card(name: str) -> RecognizerCard:
    """Return the card of a recognizer of the zoo.

    Raises:
        UnknownNameError: no recognizer of this name.
    """
    if name not in _zoo():
        raise UnknownNameError.of("recognizer", name, _zoo())
    return _zoo()[name]


@own_modes()  # or the weights would be of no use for gradients
def load_recognizer(
    source: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    input_size: tuple[int, int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    channel_order: ChannelOrder | None = None,
    threshold: float | None = None,
    device: str | torch.device = "cpu",
) -> Recognizer:
    """Load a recognizer by name, from a weight file, or from a URL.

    Args:
        source: a name of the zoo (see `list_recognizers`); the path of a `.safetensors` or plain `.pt` state
            dict, of an ONNX file, of an OpenVINO `.xml`, or of a card that `xfr calibrate` wrote; or
            `https://…#sha256=…`, which is downloaded once and verified. Nothing is ever unpickled. Or
            `module:factory`, which imports a module of yours, and so *runs its code*, and calls its function for a
            `Recognizer` or a network.
        architecture: name from `ARCHITECTURES`; found from the keys of the weights, if left out.
        input_size: height and width of the aligned face; what the card or the architecture says, if left out.
        mean, std, channel_order: see `Recognizer`; likewise.
        threshold: overrides the card's threshold.
        device: where to compute.

    Raises:
        UnknownNameError: no such name and no such file.
        WeightsError: the weights cannot be found or read, or (`LayoutError`) fit no architecture.
        ChecksumError: the file is not the published one.
        InputError: the device does not exist here.
    """
    if not isinstance(source, (str, os.PathLike)):
        wrap = ": wrap the network in Recognizer(network, …)" if isinstance(source, nn.Module) else ""
        raise InputError(
            f"a recognizer is loaded by name, path or URL, not from {type(source).__name__}{wrap}"
        )
    where = check_device(device)
    given = {"input_size": input_size, "mean": mean, "std": std, "channel_order": channel_order}
    other = _no_weight_file(os.fsdecode(source), architecture, {**given, "threshold": threshold})
    if other is not None:
        return other.to(where)
    path, card = _locate(os.fsdecode(source))
    if path.suffix == ".py":
        raise InputError(
            f"{path.name} is code: name its function that makes the recognizer, {path.stem}:FUNCTION"
        )
    try:
        state, metadata = read_weights(path)
        if card is None and _CARD_KEY in metadata:
            card = parse_card(RecognizerCard, metadata[_CARD_KEY], path.name)
        wanted = architecture or (card.architecture if card else None)
        found, state = fit_architecture(state, path.name, wanted)
    except WeightsError as error:
        known = contract_of_file(path)
        if known is None or not path.is_file():
            raise
        raise type(error)(f"{error}; this name is known as {known.name}: {known.use}") from error
    if card is None or found != card.architecture:
        card = _card_for(path, found)
    settings = input_contract(
        card.input_size if input_size is None else input_size,
        card.mean if mean is None else mean,
        card.std if std is None else std,
        channel_order or card.channel_order,
    )
    card = card.model_copy(update=settings.model_dump())
    return _build(card, state, path, threshold).to(where)


def _no_weight_file(source: str, architecture: str | None, settings: Mapping[str, Any]) -> Recognizer | None:
    """The recognizer of a model file, a card or a function; None for names, weight files and URLs."""
    given = {name: value for name, value in settings.items() if value is not None}
    path = Path(source)
    kind = path.suffix.lower()
    by_function = is_factory(source)
    if source.startswith(("http://", "https://")) or not (by_function or kind in _MODEL_FILES):
        return None
    if architecture is not None:
        raise InputError(f"{shown(source)} brings its own network: leave the architecture out")
    if by_function:
        return from_factory(source, given)
    if kind == ".json":
        return from_card(path, load_recognizer, given)
    return Recognizer.from_openvino(path, **given) if kind == ".xml" else Recognizer.from_onnx(path, **given)


def save_recognizer(recognizer: Recognizer, path: str | os.PathLike[str], card: RecognizerCard) -> None:
    """Write a recognizer's weights and its card as one safetensors file, whole or not at all."""
    document = card.model_dump(mode="json", exclude={"weights"})
    write_weights(path, recognizer.network.state_dict(), {_CARD_KEY: document})


@cache
def _zoo() -> dict[str, RecognizerCard]:
    folder = resources.files("xfr_plugin.recognition") / "zoo_data"
    cards = [
        RecognizerCard.model_validate_json(entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    ]
    return {card.name: card for card in cards} | {name: card for name, (_, card) in _embedded().items()}


@cache
def _embedded() -> dict[str, tuple[Path, RecognizerCard]]:
    """Weight file and card of each recognizer that ships with the package, by name."""
    cards = (
        (path, parse_card(RecognizerCard, document, path.name))
        for path, document in shipped_documents(_CARD_KEY).items()
    )
    return {card.name: (path, card) for path, card in cards}


def _locate(source: str) -> tuple[Path, RecognizerCard | None]:
    """Find the weight file; the card comes along where the zoo knows it."""
    if source in _embedded():
        return _embedded()[source]
    if source in _zoo():
        card = _zoo()[source]
        return _locate_published(card), card
    if source.startswith(("http://", "https://")):
        url, _, fragment = source.partition("#")
        digest = fragment.removeprefix("sha256=")
        if digest == fragment:
            raise InputError(f"a URL needs its checksum: write {url}#sha256=… with the file's SHA-256")
        return download_weights(url, digest), None
    path = Path(source)
    if os.path.exists(path) or path.suffix:
        return path, None
    unknown = UnknownNameError.of("recognizer", source, _zoo())
    raise UnknownNameError(f"{unknown}; or a file, https://…#sha256=…, or module:function")


def _locate_published(card: RecognizerCard) -> Path:
    weights = card.weights
    if weights is None:
        raise WeightsError(f"the card of {card.name} names no weights")
    local = data_root() / "weights" / weights.file
    path = local if os.path.isfile(local) else cached_weights(weights.file)
    if not os.path.isfile(path):
        advice = f"run `xfr download {card.name}`, or " if weights.url else ""
        raise WeightsError(
            f"the weights of {card.name} are not on this machine: {advice}"
            "set XFR_DATA to the folder whose weights/ has them"
        )
    check_sha256(path, weights.sha256)
    return path


def _card_for(path: Path, architecture: str) -> RecognizerCard:
    published, known = get_architecture(architecture), contract_of_file(path)
    return RecognizerCard(
        name=path.stem,
        architecture=architecture,
        input_size=published.input_size,
        mean=published.mean,
        std=published.std,
        channel_order="RGB" if known is None else known.channel_order,
        provenance=Provenance(source=path.name),
    )


def _build(card: RecognizerCard, state: dict[str, Tensor], path: Path, threshold: float | None) -> Recognizer:
    with seeded(0):  # networks are born with random weights
        network = build_network(card.architecture)
    load_state_dict_into(network, state, path.name)
    digest = card.weights.sha256 if card.weights else sha256_of(path)
    return Recognizer(
        network.requires_grad_(False),
        input_size=card.input_size,
        mean=card.mean,
        std=card.std,
        channel_order=card.channel_order,
        threshold=threshold,
        calibration=card.calibration,
        name=card.name,
        provenance=card.provenance.model_copy(update={"sha256": digest}),
        region_shares=card.region_shares,
    )
