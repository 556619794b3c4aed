"""Strangers whose regions can stand in for those of a face: other people, posed alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.natural.truth import player_masks
from xfr_plugin.faces.folder import FaceFolder

__all__ = ["mean_face", "pose_matched"]

_LOOKED_AT = 200
_MEAN_OF = 100


def pose_matched(
    faces: FaceFolder, people: Iterable[str], files: Sequence[str], count: int, seed: int
) -> list[str]:
    """Files of the strangers, of some hundred that are drawn, whose regions lie most like those of the first file.

    Args:
        faces: the folder.
        people: who may be a stranger.
        files: faces of people who may not; the first is the one to be matched.
        count: how many.
        seed: of the draw.

    Raises:
        InputError: fewer than two strangers.
    """
    known = {Path(file).parent.as_posix() for file in files}
    drawn = _drawn(faces, (person for person in people if person not in known), f"{seed}/{files[0]}")
    own = player_masks(faces.regions(files[0]))
    alike = {file: float((own & player_masks(faces.regions(file))).sum()) for file in drawn[:_LOOKED_AT]}
    chosen = sorted(alike, key=lambda file: -alike[file])[:count]
    if len(chosen) < 2:
        raise InputError(
            "natural pairs need at least two other people, whose regions take the place of a face's"
        )
    return chosen


def mean_face(faces: FaceFolder, people: Iterable[str], seed: int) -> Tensor:
    """Mean of some hundred people's faces, 8-bit RGB, 3×H×W."""
    drawn = _drawn(faces, people, f"{seed}/mean")[:_MEAN_OF]
    stacked = torch.stack([faces.pixels(file).float() for file in drawn])
    return stacked.mean(dim=0).round().byte()


def _drawn(faces: FaceFolder, people: Iterable[str], salt: str) -> list[str]:
    """A photo of each person, in an order that the salt decides, whoever else is there."""
    order = sorted(people, key=lambda person: hashlib.sha256(f"{salt}/{person}".encode()).digest())
    photos = faces.photos_of(order[: 2 * _LOOKED_AT])
    return [files[0] for files in photos.values() if files]
