"""Reading and writing network weights without ever executing what a file contains."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xfr_plugin.base.documents import read_json
from xfr_plugin.base.files import atomic_path, reason, shown
from xfr_plugin.errors import ChecksumError, InputError, LayoutError, OutputError, WeightsError, first_fault

__all__ = [
    "METADATA_KEY",
    "MODELS",
    "check_layout",
    "check_sha256",
    "halved",
    "load_halved_into",
    "load_state_dict_into",
    "parse_card",
    "read_metadata",
    "read_weights",
    "sha256_of",
    "shipped_documents",
    "write_weights",
]

METADATA_KEY = "xfr"
"""The safetensors metadata entry that holds our JSON document."""

MODELS = Path(__file__).parents[1] / "models"
"""Folder of the models that ship with the package."""

Card = TypeVar("Card", bound=BaseModel)

_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")

_WRAPPERS = ("state_dict", "model_state_dict", "model", "backbone", "net", "network", "weights", "params")
"""Keys under which checkpoints keep the state dict, the most telling first."""


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state dict, and the metadata stored with it.

    Args:
        path: a `.safetensors` file, or a `.pt`/`.pth`/`.bin`/`.ckpt` file holding a plain dictionary of tensors
            (or one inside of it, under a key such as `state_dict` or `model`). Other pickled content is refused,
            never executed.

    Returns:
        The tensors by name, on the CPU; and the JSON metadata of a file of ours (empty for other files).

    Raises:
        WeightsError: the file is missing, truncated, not a weight file, or holds more than tensors.
    """
    path = _readable(path)
    if path.suffix not in _SUFFIXES:
        raise WeightsError(f"{path.name} is no weight file: expected one of {', '.join(_SUFFIXES)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path), {}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read only the JSON metadata of a safetensors file (empty for files that are not ours).

    Raises:
        WeightsError: the file is missing, truncated or damaged.
    """
    return _read_safetensors(_readable(path), tensors=False)[1]


def write_weights(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write a state dict and its JSON metadata as one safetensors file, whole or not at all.

    Raises:
        InputError: the suffix is not `.safetensors`.
        OutputError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"weights are written as .safetensors, not {path.suffix or 'without a suffix'}")
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    told = {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=told)
        except (OSError, SafetensorError) as error:  # no space is left
            raise OutputError(f"{shown(path)} cannot be written: {reason(error)}") from error


def shipped_documents(key: str) -> dict[Path, Any]:
    """What the metadata of the models that ship with the package hold under a key, by file."""
    found = {path: read_metadata(path) for path in sorted(MODELS.glob("*.safetensors"))}
    return {path: metadata[key] for path, metadata in found.items() if key in metadata}


def parse_card(card: type[Card], document: Any, source: str) -> Card:
    """Read a card that was stored with weights; `source` names them in messages.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        return card.model_validate(document)
    except ValidationError as error:
        raise WeightsError(f"{source} has a damaged card: {first_fault(error)}") from error


def check_layout(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Check that `state` has the keys and shapes of `network`; `source` names the weights in messages.

    BatchNorm's `num_batches_tracked` counters, which do nothing in evaluation, may be absent.

    Raises:
        LayoutError: keys are missing or unknown, or shapes differ.
    """
    own = network.state_dict()
    missing = sorted(k for k in own.keys() - state.keys() if not k.endswith("num_batches_tracked"))
    unknown = sorted(state.keys() - own.keys())
    wrong = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or unknown or wrong:
        raise LayoutError(
            f"{source} does not fit {type(network).__name__}: {_describe(missing, unknown, wrong)}; "
            "choose the architecture these weights were trained with"
        )


def load_state_dict_into(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `network`, strictly; `source` names the weights in messages.

    Raises:
        LayoutError: keys are missing or unknown, or shapes differ.
    """
    check_layout(network, state, source)
    network.load_state_dict({**network.state_dict(), **state})


def halved(network: nn.Module, is_halved: Callable[[str, Tensor], bool]) -> dict[str, Tensor]:
    """Weights of a network for a file, those that the function chooses by name and value in 16 bits."""
    return {
        name: value.half() if is_halved(name, value) else value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def load_halved_into(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights of which some have 16 bits; see `load_state_dict_into`.

    Raises:
        LayoutError: keys are missing or unknown, or shapes differ.
        WeightsError: not all numbers are finite.
    """
    load_state_dict_into(network, {name: value.float() for name, value in state.items()}, source)
    if not all(value.isfinite().all() for value in state.values()):
        raise WeightsError(f"{source} holds numbers that are not finite: get the file again")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits.

    Raises:
        WeightsError: it cannot be read.
    """
    with open(_readable(path), "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: str | os.PathLike[str], expected: str) -> None:
    """Compare a file's SHA-256 with the published one.

    Raises:
        ChecksumError: they differ.
        WeightsError: the file cannot be read.
    """
    found = sha256_of(path)
    if found != expected:
        raise ChecksumError(
            f"{Path(path).name} has SHA-256 {found[:12]}…, expected {expected[:12]}…: "
            "the file is damaged or not the published one; delete it and get it again"
        )


def _read_safetensors(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys() if tensors else []
            state = {name: file.get_tensor(name) for name in names}
            document = read_json((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (SafetensorError, ValueError, TypeError, RecursionError, OSError) as error:
        raise WeightsError(f"{path.name} is not a readable safetensors file ({error})") from error
    except RuntimeError as error:  # torch's, of a file that cannot be mapped
        raise WeightsError(f"{path.name} cannot be read here: {error}") from error
    if not isinstance(document, dict):
        raise WeightsError(f"{path.name} has damaged metadata: get the file again")
    return state, document


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.name} is not a plain state dict and was not executed: save `network.state_dict()` "
            "or convert it to safetensors"
        ) from error
    except Exception as error:  # torch.load raises many types on damaged archives
        raise WeightsError(f"{path.name} is damaged or not a weight file ({type(error).__name__})") from error
    state = _state_dict_in(content)
    if state is None:
        raise WeightsError(f"{path.name} does not hold a state dict (a dictionary of tensors)")
    return {_plain_name(str(name)): value for name, value in state.items()}


def _readable(path: str | os.PathLike[str]) -> Path:
    """The path of a file that can be opened; anything may have been given as one."""
    try:
        with open(path, "rb"):
            return Path(path)
    except FileNotFoundError as error:
        raise WeightsError(f"no weight file at {shown(path)}: check the path") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"no weight file can be read at {shown(path)}: {reason(error)}") from error


def _state_dict_in(content: object, depth: int = 4) -> Mapping[str, Tensor] | None:
    """The dictionary of tensors in a checkpoint: itself, the one under a usual key, or the only one."""
    if not isinstance(content, dict) or depth == 0:
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    inner = {key: _state_dict_in(value, depth - 1) for key, value in content.items()}
    found = {key: state for key, state in inner.items() if state is not None}
    usual = [found[key] for key in _WRAPPERS if key in found]
    return usual[0] if usual else next(iter(found.values())) if len(found) == 1 else None


def _plain_name(name: str) -> str:
    """Name of a weight before its module was wrapped by `DataParallel` or `torch.compile`."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _describe(missing: list[str], unknown: list[str], wrong: list[str]) -> str:
    problems = [("missing", missing), ("unknown", unknown), ("of another shape", wrong)]
    return ", ".join(f"{len(keys)} keys {what} (e.g. {keys[0]})" for what, keys in problems if keys)
