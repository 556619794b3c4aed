"""The faces of a training: which files, which people are held out, and the images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from xfr_plugin.base.files import is_photo
from xfr_plugin.errors import InputError, PhotoFormatError
from xfr_plugin.faces.alignment import fit_aligned
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.recognition.folding import folded_recognizer
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["FaceSet", "all_files", "embed_faces", "find_faces", "read_faces", "read_pixels", "split_people"]


@dataclass(frozen=True)
class FaceSet:
    """Aligned faces.

    Attributes:
        images: uint8 RGB, N×3×H×W.
        people: a number for each image; equal numbers, same person.
        files: paths relative to the folder, as given.
    """

    images: Tensor
    people: NDArray[np.int64]
    files: list[str]

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return self.images[indices].float() / 255


def find_faces(folder: Path, people: Path | None = None) -> dict[str, list[str]]:
    """List the images below a folder by person: the name of the subfolder, or of the file itself.

    Args:
        folder: with images, or with one subfolder of images a person.
        people: an LFW people file (such as `peopleDevTrain.txt`); only these are listed. If left out, a
            `peopleDevTrain.txt` beside the folder is used where there is one, so that LFW's test people are
            never trained on by accident.

    Raises:
        InputError: no such folder, no images in it, or the people file cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"no folder of faces at {folder}: check the path")
    official = folder.parent / "peopleDevTrain.txt"
    chosen = people or (official if official.is_file() else None)
    names = set(read_people(chosen)) if chosen else None
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if is_photo(path.name):
            relative = path.relative_to(folder)
            person = relative.parts[0] if len(relative.parts) > 1 else relative.stem
            if names is None or person in names:
                found.setdefault(person, []).append(relative.as_posix())
    if not found:
        raise InputError(f"no images{f' of the people of {chosen.name}' if chosen else ''} in {folder}")
    return found


def split_people(
    faces: dict[str, list[str]], held_out: float, seed: int, per_person: int = 12
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split people (not images) into a training and a validation part.

    The choice depends on the names and the seed only, not on which other people there are.

    Args:
        faces: images by person.
        held_out: share of the people to hold out (0…1).
        seed: another seed, other people.
        per_person: so many images at most of a held-out person, so that no one dominates the figures.
    """
    train, validation = {}, {}
    for person, files in faces.items():
        digest = hashlib.sha256(f"{seed}/{person}".encode()).digest()
        if int.from_bytes(digest[:8], "big") / 2**64 < held_out:
            validation[person] = files[:per_person]
        else:
            train[person] = files
    return train, validation


def read_faces(folder: Path, faces: dict[str, list[str]], size: tuple[int, int] = (112, 112)) -> FaceSet:
    """Read aligned faces into memory, brought to `size` (height, width) where they differ.

    Raises:
        PhotoFormatError: a file is damaged or no image.
    """
    files = [file for group in faces.values() for file in group]
    people = np.repeat(np.arange(len(faces)), [len(group) for group in faces.values()])
    images = torch.empty((len(files), 3, *size), dtype=torch.uint8)
    for image, file in zip(images, files, strict=True):
        image.copy_(torch.from_numpy(fit_aligned(read_pixels(folder / file, "RGB"), size)).permute(2, 0, 1))
    return FaceSet(images, people, files)


def embed_faces(recognizer: Recognizer, faces: FaceSet, batch_size: int = 64) -> Tensor:
    """Normalised embeddings of all faces, N×D, on the CPU."""
    folded = folded_recognizer(recognizer)
    starts = range(0, len(faces), batch_size)
    batches = (torch.arange(start, min(start + batch_size, len(faces))) for start in starts)
    return torch.cat([folded.embed(faces.batch(batch)).cpu() for batch in batches])


def all_files(*splits: dict[str, list[str]]) -> Sequence[str]:
    """Every file of several splits, in order."""
    return [file for split in splits for group in split.values() for file in group]


def read_pixels(path: Path, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
    """Pixels of a photo in colour, H×W×3, or grey, H×W.

    Raises:
        PhotoFormatError: the file is damaged or no image.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode))
    except (OSError, UnidentifiedImageError) as error:
        raise PhotoFormatError(f"{path} is damaged or no image: remove it or get it again") from error
