"""Reading Labeled Faces in the Wild (Huang et al., UMass TR 07-49) and its official protocol files.

Expected layout under the root: `lfw112/<Name>/<Name>_NNNN.jpg` (aligned crops), `lfw250/` (photographs),
`labels.csv`, `pairs*.txt`, `people*.txt`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from xfr_plugin.base.files import read_text
from xfr_plugin.errors import InputError, in_one_line
from xfr_plugin.faces.alignment import Landmarks, place_on_template
from xfr_plugin.faces.regions import MESH_FEATURES, RegionMap, mesh_regions

__all__ = ["LfwPair", "image_path", "read_landmarks", "read_mesh_regions", "read_pairs", "read_people"]

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
    numbers = [_number(word, path) for word in header]
    folds, per_class = numbers if len(numbers) == 2 else (1, numbers[0])
    if len(rows) != folds * per_class * 2:
        raise InputError(f"{path.name} announces {folds * per_class * 2} pairs and holds {len(rows)}")
    return [_pair(row, i // (per_class * 2), path) for i, row in enumerate(rows)]


def read_people(path: Path) -> dict[str, int]:
    """Read `peopleDevTrain.txt` or `peopleDevTest.txt`: number of images by name.

    Raises:
        InputError: the file is missing or not of LFW's form.
    """
    header, *rows = _rows(path)
    if len(header) != 1 or _number(header[0], path) != len(rows):
        raise InputError(f"{path.name} announces {' '.join(header)} people and holds {len(rows)}")
    if odd := [row for row in rows if len(row) != 2]:
        raise InputError(f"{path.name} has a line that is no name and number: {' '.join(odd[0])}")
    return {name: _number(count, path) for name, count in rows}


def read_landmarks(path: Path) -> dict[str, Landmarks]:
    """Read `labels.csv`: five landmarks in the 250×250 photograph, by image path.

    Raises:
        InputError: the file is missing, lacks columns, or holds what is no number.
    """
    lines = read_text(path, "landmark file").splitlines()
    try:
        return {row["file"]: _landmarks(row) for row in csv.DictReader(lines)}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path.name} is no landmark file: {in_one_line(error)}") from error


def read_mesh_regions(root: Path, size: tuple[int, int] = (112, 112)) -> Callable[[str], RegionMap]:
    """Read `mesh468_aligned.npz` and `regions.json`: a function from an image path to its named regions.

    Args:
        root: folder of the two files.
        size: height and width of the aligned crops; other shapes than 112×112 are cut and scaled as faces are.

    Raises:
        InputError: a file is missing; and, by the function, an image that has no mesh.
    """
    meshes, features = root / "mesh468_aligned.npz", root / "regions.json"
    try:
        with np.load(meshes, allow_pickle=False) as stored:
            places = {str(file): i for i, file in enumerate(stored["files"])}
            points = stored["mesh_u8"]
        indices = MESH_FEATURES | json.loads(read_text(features, "file of regions"))["mesh_indices"]
    except FileNotFoundError as error:
        raise InputError(f"no face meshes: {meshes} is missing") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise InputError(f"the face meshes at {root} cannot be read: {in_one_line(error)}") from error

    @lru_cache(maxsize=4096)
    def regions_of(file: str) -> RegionMap:
        if file not in places:
            raise InputError(f"there is no face mesh of {file}")
        return mesh_regions(place_on_template(points[places[file]] / 1.5 - 32, size), indices, size)

    return regions_of


def _landmarks(row: dict[str, str]) -> Landmarks:
    return np.array([[float(row[f"{c}_x"]), float(row[f"{c}_y"])] for c in _LANDMARK_COLUMNS])


def _rows(path: Path) -> list[list[str]]:
    rows = [line.split() for line in read_text(path, "LFW protocol file").splitlines() if line.strip()]
    if not rows:
        raise InputError(f"{path.name} is empty")
    return rows


def _number(word: str, path: Path) -> int:
    if not word.isdecimal():
        raise InputError(f"{path.name} is not of LFW's form: {word!r} stands where a number should")
    return int(word)


def _pair(row: list[str], fold: int, path: Path) -> LfwPair:
    if len(row) not in (3, 4):
        raise InputError(f"{path.name} has a line that is no pair: {' '.join(row)}")
    name, first, *others, second = row
    other = others[0] if others else name
    files = image_path(name, _number(first, path)), image_path(other, _number(second, path))
    return LfwPair(*files, not others, fold)
