"""Recognizers from what is no weight file: ONNX and OpenVINO files, functions of the user's, and cards.

A *card* is a JSON file that says where a recognizer is, and what was measured of it; `xfr calibrate` writes one.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from torch import nn

from xfr_plugin.base.files import read_text, shown
from xfr_plugin.errors import InputError, WeightsError, first_fault, in_one_line
from xfr_plugin.recognition.calibration import Calibration
from xfr_plugin.recognition.contract import InputContract
from xfr_plugin.recognition.export import SETTINGS_KEY
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.onnx_files import OnnxNetwork
from xfr_plugin.recognition.openvino_files import OpenVinoNetwork
from xfr_plugin.recognition.published import PublishedCard, contract_of_file
from xfr_plugin.recognition.recognizer import Provenance, Recognizer

__all__ = [
    "MeasuredCard",
    "OnnxSettings",
    "from_card",
    "from_factory",
    "from_model_file",
    "is_factory",
    "module_of",
    "read_card",
]

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class OnnxSettings(InputContract):
    """What `Recognizer.to_onnx` writes beside the network."""

    name: str
    threshold: float | None = None
    calibration: Calibration | None = None
    region_shares: dict[str, dict[str, float]] = Field(default_factory=dict)
    provenance: Provenance = Provenance()


class MeasuredCard(InputContract):
    """What was measured of a recognizer, and where it is.

    Attributes:
        name: of the recognizer.
        source: what `load_recognizer` takes; the path of a file is relative to the card.
        fingerprint: of the recognizer that was measured, see `recognition.fingerprint`.
        calibration: what was measured.
        region_shares: see `Recognizer`; empty where they were not measured.
        gives: see `Recognizer.gives`.
    """

    name: str
    source: str
    fingerprint: str
    calibration: Calibration
    region_shares: dict[str, dict[str, float]] = Field(default_factory=dict)
    gives: str


def is_factory(source: str) -> bool:
    """Whether a recognizer is named as `module:factory`, a function of the user's."""
    return _FACTORY.fullmatch(source) is not None and not os.path.exists(source)


def module_of(source: str) -> str | None:
    """The module, or the package that it is in, of a function that makes a recognizer or a card's; None of others.

    Raises:
        InputError: see `read_card`.
    """
    if source.lower().endswith(".json") and os.path.isfile(source):
        return module_of(read_card(Path(source)).source)
    return source.partition(":")[0].partition(".")[0] if is_factory(source) else None


def from_model_file(
    path: Path,
    model: OnnxNetwork | OpenVinoNetwork,
    given: Mapping[str, Any],
    converted: nn.Module | None = None,
) -> Recognizer:
    """Make a recognizer of an ONNX or OpenVINO file that is open.

    What is given by hand goes before what the file says of itself, and that before the card of its name.

    Args:
        path: of the file.
        model: that it holds.
        given: settings by hand.
        converted: a network of torch that computes the same, and is taken in its place.

    Raises:
        WeightsError: what it says of itself is damaged.
        InputError: settings make no sense.
    """
    card = contract_of_file(path)
    settings: dict[str, Any] = {"input_size": model.input_size or (112, 112), "name": path.stem}
    if card is not None:
        settings |= {name: getattr(card, name) for name in InputContract.model_fields}
    settings["provenance"] = _origin(path, card, model.sha256)
    own = model.metadata.get(SETTINGS_KEY) if isinstance(model, OnnxNetwork) else None
    if own is not None:
        settings = _own_settings(own, path)
    settings |= {name: value for name, value in given.items() if value is not None}
    return Recognizer(converted or model, **settings)


def _origin(path: Path, card: PublishedCard | None, sha256: str | None) -> Provenance:
    """Where a model file is from: its checksum shows it, or no more than its name."""
    if card is None:
        return Provenance(source=path.name, sha256=sha256)
    is_known = sha256 in card.sha256
    source = card.source if is_known else f"by its name: {card.source}"
    return Provenance(source=source, licence=card.licence, sha256=sha256)


def from_factory(source: str, given: Mapping[str, Any]) -> Recognizer:
    """Import a module of the user's, and call its function, which makes a recognizer or a network.

    Raises:
        InputError: there is no such module or function, it fails, or it makes something else.
    """
    module, _, name = source.partition(":")
    try:
        factory: Callable[[], object] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{source} cannot be imported ({in_one_line(error)}): write module:function, and start where the "
            "module lies, or set PYTHONPATH"
        ) from error
    try:
        made = factory()
    except Exception as error:  # of the user's code
        raise InputError(f"{source} makes no recognizer: {in_one_line(error)}") from error
    if isinstance(made, Recognizer):
        refused = [setting for setting in given if setting != "threshold"]
        if refused:
            raise InputError(f"{source} makes a recognizer with settings of its own: leave {refused[0]} out")
        return made.with_threshold(given["threshold"]) if "threshold" in given else made
    if isinstance(made, nn.Module):
        return Recognizer(made, **{"name": name, **given})
    raise InputError(
        f"{source} makes a {type(made).__name__}, and neither a Recognizer nor a network of torch"
    )


def from_card(path: Path, load: Callable[..., Recognizer], given: Mapping[str, Any]) -> Recognizer:
    """Load the recognizer of a card, with what was measured of it.

    Args:
        path: of the card.
        load: loads the recognizer from its source.
        given: settings by hand, of which a card takes only the threshold.

    Raises:
        InputError: it is no card, the recognizer is not the one that was measured, or a setting is given.
    """
    refused = [setting for setting in given if setting != "threshold"]
    if refused:
        raise InputError(f"{shown(path)} says what was measured: leave {refused[0]} out, or load its source")
    card = read_card(path)
    beside = path.parent / card.source
    settings = {name: getattr(card, name) for name in InputContract.model_fields}
    found = load(str(beside), **settings) if beside.is_file() else load(card.source)
    if fingerprint(found) != card.fingerprint:
        raise InputError(
            f"{shown(path)} was measured on another recognizer than {card.source}: calibrate anew"
        )
    measured = found.with_calibration(card.calibration, card.region_shares)
    return measured.with_threshold(given.get("threshold"))


def read_card(path: Path) -> MeasuredCard:
    """Read a card that `xfr calibrate` wrote.

    Raises:
        InputError: there is none, or it is none.
    """
    try:
        return MeasuredCard.model_validate_json(read_text(path, "card"))
    except ValidationError as error:
        raise InputError(f"{shown(path)} is no card of a recognizer: {first_fault(error, 'it')}") from error


def _own_settings(text: str, path: Path) -> dict[str, Any]:
    try:
        settings = OnnxSettings.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(f"{path.name} holds damaged settings: {first_fault(error, 'they')}") from error
    return dict(settings)
