"""What a run leaves on disk: parts that are written whole or not at all, so that a kill loses nothing.

OUT/manifest.json                        what the run is made of
OUT/faces/part-000000.arrow              found faces, each once: crop, embedding, regions; or why there is none
OUT/pairs/part-000000.parquet            every pair and its decision
OUT/explanations/METHOD/part-000000.parquet   explained pairs: everything that an explanation holds but its crops
OUT/effects/METHOD/                      while pairs are explained: what leaving out regions does to each face
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import atomic_path, reason, write_text
from xfr_plugin.bulk.pairs import arrow
from xfr_plugin.errors import ResultError, first_fault
from xfr_plugin.recognition import Calibration, Provenance

__all__ = [
    "KINDS",
    "BatchManifest",
    "ExplanationStore",
    "FaceStore",
    "explanation_schema",
    "face_schema",
    "parts_of",
    "read_manifest",
    "read_parts",
    "read_rows",
    "sweep",
    "write_manifest",
    "write_pairs",
]

KINDS = ("all", "decision", "error")
"""What every summary groups by; a column of the list that is called so is kept under another name."""

_MANIFEST = "manifest.json"
_PAIR_ROWS = 100_000
_OPEN_PARTS = 64


class BatchManifest(Document):
    """What a run is made of. Methods, selections and pairs may be added to a run; the rest may not change.

    Attributes:
        format: of this document.
        version: of this package.
        recognizer: its name.
        recognizer_sha256: fingerprint of what it computes with.
        provenance: where it comes from.
        threshold: at which pairs are decided.
        threshold_source: where it comes from, in words.
        calibration: of the recognizer, if it has one.
        alignment: how photos were treated.
        check: whether explanations were checked.
        maps: whether maps are kept.
        pairs_sha256: which pairs, in which order.
        pairs: how many.
        methods: all options of each method.
        select: which pairs were explained, in words; those of all calls.
        failures: pairs without a score, and explanations that failed.
        explained: explanations by method.
    """

    format: Literal["xfr-batch/1"] = "xfr-batch/1"
    version: str
    recognizer: str
    recognizer_sha256: str
    provenance: Provenance
    threshold: float
    threshold_source: str
    calibration: Calibration | None = None
    alignment: str
    check: bool
    maps: bool
    pairs_sha256: str
    pairs: int
    methods: dict[str, dict[str, Any]]
    select: tuple[str, ...]
    failures: int = 0
    explained: dict[str, int] = Field(default_factory=dict)

    def continuing(self, old: BatchManifest) -> BatchManifest:
        """This run as a continuation of an older one in the same folder.

        Raises:
            ResultError: something that changes numbers is not what it was.
        """
        may_change = {"methods", "select", "failures", "explained"}
        for name in (name for name in BatchManifest.model_fields if name not in may_change):
            before, now = getattr(old, name), getattr(self, name)
            if before != now:
                what = _LONG.get(name, f"{name}={before}, not {now}")
                raise ResultError(f"the folder holds a run with {what}: choose another folder")
        for name in old.methods.keys() & self.methods.keys():
            if old.methods[name] != self.methods[name]:
                raise ResultError(f"the folder holds {name} with other options: choose another folder")
        words = tuple(dict.fromkeys((*old.select, *self.select)))
        return self.model_copy(update={"methods": old.methods | self.methods, "select": words})


_LONG = {
    "pairs_sha256": "other pairs (names, their order or what is genuine)",
    "recognizer_sha256": "a recognizer of the same name that computes something else",
    "provenance": "a recognizer of another provenance",
    "calibration": "a recognizer of another calibration",
}
"""What is said of differences whose values say nothing."""


def read_manifest(folder: Path) -> BatchManifest | None:
    """Manifest of a run; None if there is none.

    Raises:
        ResultError: it is damaged.
    """
    try:
        return BatchManifest.model_validate_json((folder / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        fault = first_fault(error, "the manifest")
        raise ResultError(f"{_MANIFEST} is no manifest of `xfr batch`: {fault}") from error
    except (OSError, ValueError) as error:
        raise ResultError(f"{_MANIFEST} cannot be read: {error}") from error


def write_manifest(folder: Path, manifest: BatchManifest) -> None:
    """Write the manifest, whole or not at all."""
    write_text(folder / _MANIFEST, manifest.model_dump_json(indent=1))


def sweep(folder: Path) -> None:
    """Delete what a killed run had half written, which readers of whole folders would take for parts."""
    for left in folder.rglob(".*"):
        if left.name.startswith((".part-", f".{_MANIFEST}")):
            left.unlink(missing_ok=True)


class FaceStore:
    """Faces by the checksum of their photo, in parts that are mapped into memory.

    Args:
        folder: of the parts; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, tuple[int, int]] = {}
        self.failed: dict[str, str] = {}
        self._units: dict[str, NDArray[np.float32]] = {}
        self.parts = 0
        for number in _numbers(folder):
            self._note(number)

    def add(self, table: Any) -> None:
        """Write a part."""
        ipc = arrow().ipc
        with (
            atomic_path(_face_part(self.folder, self.parts)) as temporary,
            ipc.new_file(str(temporary), table.schema) as file,
        ):
            file.write_table(table)
        self._note(self.parts)

    def forget_failed(self) -> None:
        """Have photos tried again in which no face was found."""
        for digest in self.failed:
            del self.places[digest]
        self.failed.clear()

    def units(self, digests: Sequence[str]) -> NDArray[np.float32]:
        """Unit embeddings N×D; NaN for those without a face."""
        width = len(next(iter(self._units.values()), ()))
        nothing = np.full(width, np.nan, dtype=np.float32)
        return np.stack([self._units.get(digest, nothing) for digest in digests])

    def _note(self, number: int) -> None:
        table = _opened(str(self.folder), number)
        columns = (table.column(name).to_pylist() for name in ("digest", "error"))
        units = table.column("unit")
        for row, (digest, error) in enumerate(zip(*columns, strict=True)):
            self.places[digest] = (number, row)
            if error is not None:
                self.failed[digest] = error
            else:
                self.failed.pop(digest, None)  # by a later part
                self._units[digest] = units[row].values.to_numpy()
        self.parts = max(self.parts, number + 1)


def read_rows(folder: str, places: Sequence[tuple[int, int]]) -> Any:
    """Faces at these places of a `FaceStore`, as a table; can be read by any process."""
    package = arrow()
    rows = package.concat_tables([_opened(folder, part).slice(row, 1) for part, row in places])
    return rows.combine_chunks()  # pickled, slices would take all of their part along


def _opened(folder: str, number: int) -> Any:
    path = _face_part(Path(folder), number)
    try:
        known = os.stat(path)
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {reason(error)}") from error
    return _mapped(str(path), known.st_ino, known.st_mtime_ns)


@lru_cache(maxsize=_OPEN_PARTS)
def _mapped(path: str, inode: int, changed: int) -> Any:
    """A part, kept as long as it is the same file: a path may lead to another one later."""
    package = arrow()
    try:
        return package.ipc.open_file(package.memory_map(path)).read_all()
    except (OSError, package.ArrowException) as error:
        raise ResultError(f"{path} is damaged: delete it to have its faces found again") from error


class ExplanationStore:
    """Explanations of a method, in parts.

    Args:
        folder: of the parts; need not exist.
        retry_failed: forget what failed, so that it is tried again.
    """

    def __init__(self, folder: Path, retry_failed: bool = False) -> None:
        self.folder = folder
        self.done: set[int] = set()
        numbers = _numbers(folder)
        self.parts = max(numbers, default=-1) + 1
        for number in numbers:
            self._note(number, retry_failed)

    def add(self, table: Any) -> None:
        """Write a part."""
        self._write(self.parts, table)
        self.done.update(table.column("pair").to_pylist())
        self.parts += 1

    def _note(self, number: int, retry_failed: bool) -> None:
        from pyarrow import compute

        path = str(_part(self.folder, number, "parquet"))
        table = read_parts([path], ["pair", "error"])
        if retry_failed and table.column("error").null_count < len(table):
            whole = read_parts([path])
            table = whole.filter(compute.is_null(whole.column("error")))
            self._write(number, table)
        self.done.update(table.column("pair").to_pylist())

    def _write(self, number: int, table: Any) -> None:
        from pyarrow import parquet

        with atomic_path(_part(self.folder, number, "parquet")) as temporary:
            parquet.write_table(table, temporary, compression="zstd")


def parts_of(folder: Path) -> list[str]:
    """Paths of the parts of pairs or explanations in a folder, in order."""
    return sorted(map(str, folder.glob("part-*.parquet")))


def read_parts(paths: Sequence[str], columns: Sequence[str] | None = None, only: Any = None) -> Any:
    """Parts of pairs or explanations as one table: all columns or some, all rows or those of an expression.

    Raises:
        ResultError: one is damaged.
    """
    from pyarrow import dataset

    try:
        return dataset.dataset(list(paths)).to_table(columns=columns, filter=only)
    except (OSError, arrow().ArrowException) as error:
        words = " ".join(str(error).split())
        raise ResultError(
            f"a part of the run is damaged: delete it and run the same command again ({words})"
        ) from error


def write_pairs(folder: Path, columns: Mapping[str, Any]) -> None:
    """Write all pairs, a column a name, anew."""
    from pyarrow import parquet

    table = arrow().table(dict(columns))
    for number, start in enumerate(range(0, len(table), _PAIR_ROWS)):
        with atomic_path(_part(folder, number, "parquet")) as temporary:
            parquet.write_table(table.slice(start, _PAIR_ROWS), temporary, compression="zstd")


def face_schema() -> Any:
    """Columns of a part of faces."""
    pa = arrow()
    return pa.schema(
        [
            ("digest", pa.string()),
            ("error", pa.string()),
            ("height", pa.int32()),
            ("image", pa.binary()),
            ("labels", pa.binary()),
            ("names", pa.list_(pa.string())),
            ("detected", pa.string()),
            ("notes", pa.list_(pa.string())),
            ("unit", pa.list_(pa.float32())),
        ]
    )


def explanation_schema() -> Any:
    """Columns of a part of explanations: those of `Explanation`, but for crops and the decision."""
    pa = arrow()
    region = pa.struct(
        [
            ("face", pa.string()),
            ("region", pa.string()),
            ("pixels", pa.int32()),
            *((name, pa.float64()) for name in ("evidence", "similar", "dissimilar", "error")),
        ]
    )
    return pa.schema(
        [
            ("pair", pa.int64()),
            ("error", pa.string()),
            ("regions", pa.list_(region)),
            ("probe_map", pa.binary()),
            ("reference_map", pa.binary()),
            ("verdict", pa.string()),
            ("statistic", pa.float64()),
            ("faithfulness", pa.string()),
            ("notes", pa.list_(pa.string())),
            ("seconds", pa.float64()),
        ]
    )


def _part(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"part-{number:06d}.{suffix}"


def _face_part(folder: Path, number: int) -> Path:
    return _part(folder, number, "arrow")


def _numbers(folder: Path) -> list[int]:
    """Numbers of the parts in a folder; temporary files of a killed run are none."""
    if not os.path.isdir(folder):
        return []
    return sorted(int(path.stem[5:]) for path in folder.glob("part-*") if path.stem[5:].isdecimal())
