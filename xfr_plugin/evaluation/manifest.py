"""What a run was made of: everything that changes its numbers. A run is not resumed with anything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xfr_plugin._version import __version__
from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import shown, write_text
from xfr_plugin.errors import InputError, ResultError
from xfr_plugin.evaluation.pairs import PairEntry
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["RunManifest", "describe_recognizer", "read_manifest", "versions", "write_manifest"]

_FORMAT = "xfr-evaluation/1"
_PACKAGES = ("torch", "captum", "zennit", "numpy", "scipy", "scikit-image")


class RunManifest(Document):
    """A run, so that it can be resumed, and rerun by others.

    Methods, protocols and pairs may be added to a run; what is there may not change.

    Attributes:
        format: of this document.
        versions: of this package and of those that compute.
        recognizer: name, checksum of its parameters, preprocessing, number type and kind of device.
        threshold: at which pairs are decided.
        seed: of everything random in the protocols.
        regions: where named regions come from.
        methods: options by method, chance baselines included.
        protocols: settings by protocol.
        pairs: plain pairs, in their order.
        plantings: planted pairs, in their order.
        covered: pairs whose probe wears something, in their order.
        photographs: pairs whose probe comes with its photograph, in their order.
        faces: checksum of each file; of photographs too, by their place in the folder `photographs`.
    """

    format: str = _FORMAT
    versions: dict[str, str]
    recognizer: dict[str, Any]
    threshold: float
    seed: int
    regions: str
    methods: dict[str, dict[str, Any]]
    protocols: dict[str, dict[str, Any]]
    pairs: tuple[PairEntry, ...] = ()
    plantings: tuple[PairEntry, ...] = ()
    covered: tuple[PairEntry, ...] = ()
    photographs: tuple[PairEntry, ...] = ()
    faces: dict[str, str]

    @property
    def entries(self) -> tuple[PairEntry, ...]:
        """Pairs of all kinds."""
        return (*self.pairs, *self.plantings, *self.covered, *self.photographs)

    def joined(self, old: RunManifest) -> RunManifest:
        """This run as a continuation of an older one in the same folder.

        Raises:
            InputError: something that changes numbers is not what it was.
        """
        for name in ("format", "versions", "recognizer", "threshold", "seed", "regions"):
            _compare(name, getattr(old, name), getattr(self, name))
        for name in ("methods", "protocols", "faces"):
            before, now = getattr(old, name), getattr(self, name)
            for key in before.keys() & now.keys():
                _compare(f"{name[:-1]} {key}", before[key], now[key])
        return self.model_copy(
            update={
                "methods": old.methods | self.methods,
                "protocols": old.protocols | self.protocols,
                "faces": old.faces | self.faces,
                "pairs": _extended("pairs", old.pairs, self.pairs),
                "plantings": _extended("plantings", old.plantings, self.plantings),
                "covered": _extended("covered pairs", old.covered, self.covered),
                "photographs": _extended("photographs", old.photographs, self.photographs),
            }
        )


def versions() -> dict[str, str]:
    """Versions of this package and of those that compute."""
    return {"xfr-plugin": __version__} | {name: metadata.version(name) for name in _PACKAGES}


def describe_recognizer(recognizer: Recognizer) -> dict[str, Any]:
    """What identifies a recognizer: a checksum of its parameters and of what it does to images."""
    digest = hashlib.sha256()
    for name, value in sorted(recognizer.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return {
        "name": recognizer.name,
        "sha256": digest.hexdigest(),
        "input_size": list(recognizer.input_size),
        "mean": recognizer.mean.flatten().tolist(),
        "std": recognizer.std.flatten().tolist(),
        "channel_order": recognizer.channel_order,
        "dtype": str(recognizer.dtype),
        "device": recognizer.device.type,
    }


def plain(values: Mapping[str, object]) -> dict[str, Any]:
    """Options as JSON holds them; what it cannot hold, in words."""
    result: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return result


def read_manifest(path: Path) -> RunManifest:
    """Read a manifest.

    Raises:
        ResultError: missing, or not one of ours.
    """
    if not path.is_file():
        raise ResultError(f"there is no evaluation in {shown(path.parent)}: run it first, or name its folder")
    try:
        return RunManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ResultError(f"{path} is not the manifest of an evaluation: {reason}") from error


def write_manifest(manifest: RunManifest, path: Path) -> None:
    """Write a manifest, whole or not at all."""
    write_text(path, manifest.model_dump_json(indent=1))


def _compare(what: str, before: object, now: object) -> None:
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            _compare(f"{what} {key}", before.get(key), now.get(key))
    raise InputError(
        f"this folder holds another run: {what} was {_short(before)} and is now {_short(now)}; "
        "use another --out, or delete the folder"
    )


def _extended(what: str, before: tuple[PairEntry, ...], now: tuple[PairEntry, ...]) -> tuple[PairEntry, ...]:
    """The longer of two lists, of which one holds all of the other."""
    more = max(before, now, key=len)
    if not {*before, *now} <= {*more}:
        raise InputError(
            f"this folder holds another run, of other {what}: use another --out, or delete the folder"
        )
    return more


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"
