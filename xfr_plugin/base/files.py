"""Reading and writing files: whole or not at all, and with errors of ours whatever the path is.

`Path.exists` and its like raise for paths that are too long, hold a NUL or lie in a folder that may not be read;
those of `os.path` say no.
"""

from __future__ import annotations

import codecs
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xfr_plugin.errors import InputError, OutputError, ResultError

__all__ = [
    "PHOTOS",
    "atomic_path",
    "check_targets",
    "is_photo",
    "make_folder",
    "read_text",
    "reason",
    "shown",
    "write_text",
    "writing_to",
]

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""How the names of photos in a folder end."""

_LONGEST_SHOWN = 120
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there if the block succeeds, delete it if not.

    Raises:
        OutputError: the folder cannot be made or written to, or `path` is a folder.
    """
    make_folder(path.parent)
    temporary = path.parent / f".{path.name[:80]}.{secrets.token_hex(6)}{path.suffix}"
    try:
        # not tempfile: its files are private, and asking for the umask changes it for all threads
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except (OSError, ValueError) as error:
        raise OutputError(f"{shown(path)} cannot be written: {reason(error)}") from error
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)
        _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{shown(path)} cannot be written: {reason(error)}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OutputError: see `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Say which folder it is that cannot be written to.

    Raises:
        ResultError: the block could not write.
    """
    try:
        yield
    except OSError as error:
        raise ResultError(f"cannot write to {shown(folder)}: {reason(error)}") from error


def check_targets(targets: Iterable[Path], sources: Iterable[str | os.PathLike[str]]) -> None:
    """Make sure, before work begins, that what it will write can be there, and is nothing that it reads.

    Raises:
        OutputError: a target is one of the sources or a folder, or cannot be made.
    """
    read = [source for source in sources if os.path.exists(source)]
    for target in targets:
        if os.path.isdir(target):
            raise OutputError(f"{shown(target)} is a folder, and should become a file: choose another name")
        if os.path.exists(target) and any(os.path.samefile(target, source) for source in read):
            raise OutputError(f"{shown(target)} would be written over what is read: choose another place")
        there = next((above for above in target.absolute().parents if os.path.exists(above)), Path("/"))
        if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(f"{shown(target)} cannot be written: {shown(there)} is no folder to write to")


def make_folder(folder: Path, advice: str = "choose another folder") -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        OutputError: it cannot be made; the message ends with `advice`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"the folder {shown(folder)} cannot be made ({reason(error)}): {advice}") from error


def read_text(path: str | os.PathLike[str], kind: str) -> str:
    """Read a text file that others wrote: UTF-8, UTF-16 with its mark, or else Latin-1.

    Args:
        path: of the file.
        kind: what it should be, for messages.

    Raises:
        InputError: it is not there or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise InputError(f"no {kind} at {shown(path)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the {kind} {shown(path)} cannot be read: {reason(error)}") from error
    try:
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def is_photo(name: str) -> bool:
    """Whether a file of this name in a folder is taken for a photo; hidden ones are what programs left there."""
    return name.lower().endswith(PHOTOS) and not name.startswith(".")


def shown(path: str | os.PathLike[str]) -> str:
    """A path for messages: on one line, and its beginning and end if it is long."""
    text = os.fsdecode(path)
    text = text if text.isprintable() else ascii(text)[1:-1]
    half = _LONGEST_SHOWN // 2
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:half]}…{text[-half:]}"


def reason(error: Exception) -> str:
    """Why a file could not be opened, without repeating its path."""
    words: str | None = getattr(error, "strerror", None)
    return words or str(error)
