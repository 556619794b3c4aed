"""Aligned faces in a folder, one subfolder a person, with their named regions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.files import is_photo, reason, shown
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.faces.lfw import read_mesh_regions
from xfr_plugin.faces.photo import read_face
from xfr_plugin.faces.regions import RegionsOf, template_regions

__all__ = ["FaceFolder", "RegionSource", "Split", "as_pixels", "in_split"]


Split: TypeAlias = Literal["dev", "test", "all"]
"""Half of the people, by a hash of their names: choose methods and constants on one, and report on the other."""


RegionSource: TypeAlias = Literal["auto", "mesh", "template"]
"""Where named regions come from: face meshes beside the faces, the template, or meshes where there are any."""


_PARITY = {"dev": 0, "test": 1, "all": None}


def in_split(person: str, split: Split) -> bool:
    """Whether a person belongs to a split; see `Split`.

    Raises:
        UnknownNameError: no such split.
    """
    if split not in _PARITY:
        raise UnknownNameError.of("split", split, _PARITY)
    wanted = _PARITY[split]
    return wanted is None or hashlib.sha256(person.encode()).digest()[0] % 2 == wanted


class FaceFolder:
    """Aligned faces in a folder, with their named regions.

    Args:
        folder: of the faces; for LFW's layout also the folder above `lfw112`.
        size: height and width that faces are read at.
        regions: see `RegionSource`.
        example: a file that must be there, by which the folder is found.

    Raises:
        InputError: the file is not there, or there are no meshes though they were asked for.
    """

    def __init__(
        self, folder: Path, size: tuple[int, int], regions: RegionSource = "auto", example: str | None = None
    ) -> None:
        self._given = (folder, size, regions, example)
        places = (folder, folder / "lfw112")
        found = [
            place
            for place in places
            if os.path.isdir(place) and (not example or os.path.exists(place / example))
        ]
        found = found if example else found[::-1]
        if not found:
            raise InputError(
                f"no faces at {shown(folder)}" + (f": {example} is not there" if example else "")
            )
        self.folder, self.size = found[0], size
        meshes = [place for place in (folder, folder.parent) if os.path.isfile(place / "mesh468_aligned.npz")]
        if regions == "mesh" and not meshes:
            raise InputError(f"no face meshes (mesh468_aligned.npz, regions.json) at {folder}")
        self.meshes = meshes[0] if meshes and regions != "template" else None
        self.regions: RegionsOf = (
            read_mesh_regions(self.meshes, size) if self.meshes else lambda _file: template_regions(size)
        )
        self.face = lru_cache(maxsize=512)(self._face)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads the folder itself."""
        return FaceFolder, self._given

    def photos_of(self, people: Iterable[str], split: Split = "all") -> dict[str, list[str]]:
        """Files of each person: all images in the folder of that name."""
        return {
            person: sorted(
                f"{person}/{file.name}" for file in _entries(self.folder / person) if is_photo(file.name)
            )
            for person in people
            if in_split(person, split)
        }

    def everyone(self) -> list[str]:
        """All people: folders with images."""
        return sorted(entry.name for entry in _entries(self.folder) if os.path.isdir(entry))

    def digests(self, files: Iterable[str]) -> dict[str, str]:
        """Checksum of each file.

        Raises:
            InputError: one is not there, or has no named regions.
        """
        result = {}
        for file in sorted(set(files)):
            try:
                content = (self.folder / file).read_bytes()
            except (OSError, ValueError) as error:
                raise InputError(f"{file} is not in {self.folder}: check --faces and --pairs") from error
            self.regions(file)
            result[file] = hashlib.sha256(content).hexdigest()[:16]
        return result

    def pixels(self, file: str) -> Tensor:
        """A face as 8-bit RGB, 3×H×W."""
        return as_pixels(self.face(file))

    def _face(self, file: str) -> NDArray[np.float32]:
        return read_face(self.folder / file, self.size)


def _entries(folder: Path) -> list[Path]:
    """What a folder holds; nothing, if there is no such folder."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"the folder {shown(folder)} cannot be read: {reason(error)}") from error


def as_pixels(face: NDArray[np.float32]) -> Tensor:
    """8-bit RGB, 3×H×W, of a face H×W×3 in [0, 1]."""
    return torch.from_numpy(np.rint(face.transpose(2, 0, 1) * 255).astype(np.uint8))
