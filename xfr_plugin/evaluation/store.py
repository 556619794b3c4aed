"""What a run leaves on disk: lines of results that survive a kill, maps, and a lock."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from xfr_plugin.base.files import atomic_path, reason, shown, write_text
from xfr_plugin.base.locks import locked
from xfr_plugin.errors import OutputError, ResultError
from xfr_plugin.evaluation.protocol import PairMaps

__all__ = ["Line", "MapCache", "Shard", "locked", "records_path", "writing"]

Line: TypeAlias = dict[str, Any]
"""One line of a shard: a JSON object with the `pair` that it is about."""


class Shard:
    """A file of JSON lines, one for each pair, to which lines are only ever added.

    A line is written at once and whole; what a kill has torn off is the last line, and is dropped here.

    Args:
        path: of the file; need not exist.
        read_only: leave the file as it is.

    Attributes:
        lines: by pair.

    Raises:
        ResultError: a line that is not the last is no JSON object with a pair, or a pair has two lines.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.lines: dict[str, Line] = {}
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content) and not read_only:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, text in enumerate(whole.splitlines(), start=1):
            line = _parsed(text, path, number)
            if line["pair"] in self.lines:
                raise ResultError(f"{path} has two lines for the pair {line['pair']!r}: start anew elsewhere")
            self.lines[line["pair"]] = line

    def append(self, line: Line) -> None:
        """Add the line of a pair that has none yet, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        if line["pair"] in self.lines:
            raise ResultError(f"{self.path} already has a line for the pair {line['pair']!r}")
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                before = file.tell()
            try:
                with self.path.open("ab") as file:
                    file.write(text.encode())
            except OSError:
                with suppress(OSError):
                    os.truncate(self.path, before)
                raise
        self.lines[line["pair"]] = line

    def drop(self, unwanted: Callable[[Line], bool]) -> None:
        """Forget lines; the file is rewritten whole or not at all."""
        kept = {pair: line for pair, line in self.lines.items() if not unwanted(line)}
        if len(kept) == len(self.lines):
            return
        self.lines = kept
        texts = [json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in kept.values()]
        with writing(self.path):
            write_text(self.path, "".join(texts))


def records_path(folder: Path, protocol: str, method: str) -> Path:
    """File of the records of a protocol on a method, in the folder of a run."""
    return folder / "records" / protocol / f"{method}.jsonl"


class MapCache:
    """Maps on disk, as the 32-bit floats that they are judged in: half precision would tie pixels, and so change
    the order in which they are removed.

    Args:
        folder: of the maps; None keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, method: str, pair: str) -> PairMaps | None:
        """Maps of a pair, if they are here and whole."""
        if self.folder is None:
            return None
        try:
            with np.load(self._path(method, pair), allow_pickle=False) as stored:
                return stored["probe"], stored["reference"]
        except (OSError, ValueError, KeyError, BadZipFile):
            return None

    def put(self, method: str, pair: str, maps: PairMaps) -> None:
        """Keep the maps of a pair, whole or not at all."""
        if self.folder is None:
            return
        path = self._path(method, pair)
        with writing(path), atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, probe=maps[0], reference=maps[1])

    def _path(self, method: str, pair: str) -> Path:
        assert self.folder is not None
        return self.folder / method / f"{hashlib.sha256(pair.encode()).hexdigest()[:24]}.npz"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file of a run it is that cannot be written: that is no fault of a method."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{shown(path)} cannot be written: {reason(error)}; what is there is whole, and the same call goes on"
        ) from error


def _parsed(text: bytes, path: Path, number: int) -> Line:
    try:
        line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("pair"), str):
            return line
    except ValueError:
        pass
    raise ResultError(f"{path}, line {number}, is damaged: delete the file to have its pairs judged again")
