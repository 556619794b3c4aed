"""Reading Labeled Faces in the Wild (Huang et al., UMass TR 07-49) and its official protocol files.

Expected layout under the root: `lfw112/<Name>/<Name>_NNNN.jpg` (aligned crops), `lfw250/` (photographs),
`labels.csv`, `pairs*.txt`, `people*.txt`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import Landmarks

__all__ = ["LfwPair", "image_path", "read_landmarks", "read_pairs", "read_people"]

_LANDMARK_COLUMNS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")


class LfwPair(NamedTuple):
    """Two images (paths relative to the image folder), whether they show one person, and the fold."""

    probe: str
    reference: str
    same: bool
    fold: int


def image_path(name: str, number: int) -> str:
    """Path of an image relative to the image folder, e.g. `Jane_Doe/Jane_Doe_0001.jpg`."""
    return f"{name}/{name}_{number:04d}.jpg"


def read_pairs(path: Path) -> list[LfwPair]:
    """Read `pairs.txt` (ten folds), `pairsDevTrain.txt` or `pairsDevTest.txt` (one fold, number 0).

    Raises:
        InputError: the file is missing or not of LFW's form.
    """
    header, *rows = _rows(path)
    folds, per_class = (int(header[0]), int(header[1])) if len(header) == 2 else (1, int(header[0]))
    if len(rows) != folds * per_class * 2:
        raise InputError(f"{path.name} announces {folds * per_class * 2} pairs and holds {len(rows)}")
    return [_pair(row, i // (per_class * 2), path) for i, row in enumerate(rows)]


def read_people(path: Path) -> dict[str, int]:
    """Read `peopleDevTrain.txt` or `peopleDevTest.txt`: number of images by name.

    Raises:
        InputError: the file is missing or not of LFW's form.
    """
    header, *rows = _rows(path)
    if len(header) != 1 or int(header[0]) != len(rows):
        raise InputError(f"{path.name} announces {' '.join(header)} people and holds {len(rows)}")
    return {name: int(count) for name, count in rows}


def read_landmarks(path: Path) -> dict[str, Landmarks]:
    """Read `labels.csv`: five landmarks in the 250×250 photograph, by image path.

    Raises:
        InputError: the file is missing.
    """
    if not path.is_file():
        raise InputError(f"no landmark file at {path}")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["file"]: _landmarks(row) for row in csv.DictReader(file)}


def _landmarks(row: dict[str, str]) -> Landmarks:
    return np.array([[float(row[f"{c}_x"]), float(row[f"{c}_y"])] for c in _LANDMARK_COLUMNS])


def _rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise InputError(f"no LFW protocol file at {path}")
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _pair(row: list[str], fold: int, path: Path) -> LfwPair:
    if len(row) == 3:
        name, first, second = row
        return LfwPair(image_path(name, int(first)), image_path(name, int(second)), True, fold)
    if len(row) == 4:
        name, first, other, second = row
        return LfwPair(image_path(name, int(first)), image_path(other, int(second)), False, fold)
    raise InputError(f"{path.name} has a line that is no pair: {' '.join(row)}")
