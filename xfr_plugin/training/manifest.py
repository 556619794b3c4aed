"""Data manifests: which files a training used, with their hashes, so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import write_text
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import InputError

__all__ = ["Manifest", "build_manifest"]


class Manifest(Document):
    """Files of a data set (paths relative to its root, in order) and their SHA-256."""

    files: dict[str, str]

    @property
    def digest(self) -> str:
        """One SHA-256 for the whole list."""
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=0))


def build_manifest(root: Path, files: Iterable[str]) -> Manifest:
    """Hash files below `root`.

    Raises:
        InputError: a file is missing.
    """
    names = list(files)
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(names)} files are missing below {root}, e.g. {missing[0]}")
    return Manifest(files={name: sha256_of(root / name) for name in names})
