"""Which pairs: a list in a file, a folder against itself, or probes against a gallery."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.files import is_photo, read_text, shown
from xfr_plugin.errors import InputError
from xfr_plugin.faces.lfw import read_pairs

__all__ = ["PairTable", "arrow", "read_pair_table"]

Indices = NDArray[np.int64]

_COLUMNS = ("probe", "reference", "genuine")
_TRUTH = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": -1, "nan": -1}


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise InputError("many pairs need pyarrow: pip install 'xfr-plugin[evaluate]'") from error
    return pyarrow


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pairs of photos, by number.

    Attributes:
        names: of the photos, each once, as results show them.
        paths: where they lie.
        probes: for each pair, the place of its probe in `names`.
        references: the same of its reference.
        genuine: for each pair 1 where both show one person, 0 where they do not, −1 where nobody said.
        columns: columns of the list that mean nothing here (pyarrow table, a row a pair); None if there are none.
        people: for each photo whose it is; None where nobody said.
    """

    names: Sequence[str]
    paths: Sequence[Path]
    probes: Indices
    references: Indices
    genuine: NDArray[np.int8]
    columns: Any = None
    people: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.probes)

    def digest(self) -> str:
        """SHA-256 of names and numbers: which pairs these are, in which order."""
        digest = hashlib.sha256("\0".join(self.names).encode("utf-8", "surrogateescape"))
        for values in (self.probes, self.references, self.genuine):
            digest.update(values.tobytes())
        return digest.hexdigest()


def read_pair_table(
    source: str | os.PathLike[str],
    *,
    gallery: str | os.PathLike[str] | None = None,
    photos: str | os.PathLike[str] | None = None,
    people: bool = False,
    besides: str | os.PathLike[str] | None = None,
) -> PairTable:
    """Read pairs.

    Args:
        source: a CSV, Parquet or JSON-lines file with the columns `probe` and `reference` (and, if it is known,
            `genuine`, 1 or 0; all other columns go along), or LFW's `pairs*.txt`; or a folder, each of whose photos
            is paired with each other one, once. With a gallery: the probes, as a folder, a text file with a name a
            line, or a file with the column `probe`.
        gallery: folder of photos, with each of which every probe is paired.
        photos: folder that names in a file start from; the file's own, if left out.
        people: folders are named by the person whose photos they hold, so that it is known which pairs are genuine.
        besides: a folder whose pictures are no photos of a list, such as that of the run, where it lies within.

    Raises:
        InputError: there is no such file or folder, or it holds no pairs; a photo lies in no folder of a person;
            pyarrow is not installed.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"pairs are a path or what `read_pair_table` gave, not {type(source).__name__}")
    path, left_out = Path(source), None if besides is None else os.path.realpath(besides)
    if gallery is not None:
        table = _against(_probes(path, photos, left_out), Path(gallery), left_out)
    elif os.path.isdir(path):
        table = _with_itself(path, left_out)
    else:
        table = _listed(path, photos)
    if not len(table):
        raise InputError(f"there are no pairs in {shown(path)}")
    return _with_people(table) if people else table


def _with_itself(folder: Path, left_out: str | None) -> PairTable:
    names = _images(folder, left_out)
    probes, references = np.triu_indices(len(names), 1)
    return _unlabelled(names, [folder / name for name in names], probes, references)


def _against(probes: tuple[list[str], list[Path]], gallery: Path, left_out: str | None) -> PairTable:
    if not os.path.isdir(gallery):
        raise InputError(f"the gallery is a folder of photos, and there is none at {shown(gallery)}")
    others = _images(gallery, left_out)
    first, second = np.meshgrid(
        np.arange(len(probes[0])), len(probes[0]) + np.arange(len(others)), indexing="ij"
    )
    paths = [*probes[1], *(gallery / name for name in others)]
    return _unlabelled([*probes[0], *others], paths, first.ravel(), second.ravel())


def _probes(
    path: Path, photos: str | os.PathLike[str] | None, left_out: str | None
) -> tuple[list[str], list[Path]]:
    """Names and paths of the probes."""
    if os.path.isdir(path):
        names, root = _images(path, left_out), path
    else:
        root = Path(photos) if photos is not None else path.parent
        if path.suffix.lower() in _READERS:
            names = _texts(_read(path), "probe", path)
        else:
            names = [line.strip() for line in read_text(path, "list of probes").splitlines() if line.strip()]
        names = list(dict.fromkeys(names))
    return names, [root / name for name in names]


def _listed(path: Path, photos: str | os.PathLike[str] | None) -> PairTable:
    root = Path(photos) if photos is not None else path.parent
    columns, genuine = None, None
    if path.suffix.lower() == ".txt":
        pairs = read_pairs(path)
        probes, references = [pair.probe for pair in pairs], [pair.reference for pair in pairs]
        genuine = np.array([pair.same for pair in pairs], dtype=np.int8)
    else:
        table = _read(path)
        probes, references = (_texts(table, name, path) for name in ("probe", "reference"))
        if "genuine" in table.column_names:
            genuine = _genuine(table, path)
        rest = [name for name in table.column_names if name not in _COLUMNS]
        columns = table.select(rest) if rest else None
    places: dict[str, int] = {}
    numbers = [[places.setdefault(name, len(places)) for name in side] for side in (probes, references)]
    first, second = (np.array(side, dtype=np.int64) for side in numbers)
    names = list(places)
    listed = _unlabelled(names, [root / name for name in names], first, second, genuine, columns)
    return replace(listed, people=_owners(names)) if path.suffix.lower() == ".txt" else listed


def _unlabelled(
    names: Sequence[str],
    paths: Sequence[Path],
    probes: Indices,
    references: Indices,
    genuine: NDArray[np.int8] | None = None,
    columns: Any = None,
) -> PairTable:
    known = np.full(len(probes), -1, dtype=np.int8) if genuine is None else genuine
    return PairTable(names, paths, probes.astype(np.int64), references.astype(np.int64), known, columns)


def _with_people(table: PairTable) -> PairTable:
    """The table, genuine where both photos lie in folders of one name."""
    people = _owners(table.names)
    numbers = np.unique(people, return_inverse=True)[1]
    same = (numbers[table.probes] == numbers[table.references]).astype(np.int8)
    return replace(table, genuine=same, people=people)


def _owners(names: Sequence[str]) -> list[str]:
    """By whom the folders of photos are named."""
    people = [PurePath(name).parent.name for name in names]
    for name, person in zip(names, people, strict=True):
        if not person:
            raise InputError(f"whose photo is {shown(name)}? It lies in no folder that is named by a person")
    return people


def _images(folder: Path, left_out: str | None) -> list[str]:
    """Names of all photos below a folder, sorted, but for those below another."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(place, name)) != left_out]
        inside = Path(place).relative_to(folder)
        found += [(inside / file).as_posix() for file in files if is_photo(file)]
    return sorted(found)


def _csv(path: Path) -> Any:
    from pyarrow import csv, string

    texts = dict.fromkeys(_COLUMNS, string())
    data = io.BytesIO(read_text(path, "file of pairs").encode())
    return csv.read_csv(data, convert_options=csv.ConvertOptions(column_types=texts))


def _parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


def _json_lines(path: Path) -> Any:
    from pyarrow import json

    return json.read_json(path)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}


def _read(path: Path) -> Any:
    """The table in a file."""
    read = _READERS.get(path.suffix.lower())
    if read is None:
        known = ", ".join(_READERS)
        raise InputError(f"pairs are read from a folder, {known} or LFW's .txt, not from {shown(path)}")
    package = arrow()
    try:
        return _with_distinct_columns(read(path), path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no file of pairs at {shown(path)}") from error
    except (OSError, ValueError, package.ArrowException) as error:
        raise InputError(
            f"the pairs in {shown(path)} cannot be read: {' '.join(str(error).split())}"
        ) from error


def _with_distinct_columns(table: Any, path: Path) -> Any:
    for name, times in Counter(table.column_names).items():
        if times > 1:
            raise InputError(f"{shown(path)} has {times} columns {name!r}: give each its own name")
    return table


def _texts(table: Any, name: str, path: Path) -> list[str]:
    if name not in table.column_names:
        raise InputError(f"{shown(path)} has no column {name!r}: it has {', '.join(table.column_names)}")
    texts = table.column(name).to_pylist()
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise InputError(f"{shown(path)}, pair {number}: {name} must name a photo, got {text!r}")
    return list(texts)


def _genuine(table: Any, path: Path) -> NDArray[np.int8]:
    """1, 0, or −1 where the cell is empty."""
    values = []
    for number, value in enumerate(table.column("genuine").to_pylist()):
        word = "" if value is None else str(value).strip().lower()
        if word not in _TRUTH:
            raise InputError(f"{shown(path)}, pair {number}: genuine must be 1, 0 or empty, got {value!r}")
        values.append(_TRUTH[word])
    return np.array(values, dtype=np.int8)
