"""The folder of a running server: closed to other users, and locked, so that two servers never share one."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from xfr_plugin.errors import InputError

__all__ = ["check_running", "check_space", "lock_folder"]


def lock_folder(folder: Path) -> int:
    """Make a folder, close it to others, and lock it; returns the descriptor that holds the lock until it is closed.

    Whatever process inherits the descriptor holds the lock, too.

    Raises:
        InputError: another server runs in it, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(f"{folder} cannot be used to run in: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise InputError(f"another server runs in {folder}: stop it, or choose another --run-dir") from error
    return lock


def check_running(folder: Path) -> None:
    """Make sure that a server runs in a folder.

    Raises:
        InputError: none does; a key file that lies there was left by one that was killed.
    """
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(lock)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    raise InputError(f"no server runs in {folder}: name the --run-dir of one that does")


def check_space(folder: Path, needed: int) -> None:
    """Make sure that a file system has room for so many bytes.

    Raises:
        InputError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"the temporary folder {folder} has {free >> 20} MiB free, and {needed >> 20} are needed: "
            "make room, or set TMPDIR"
        )
