"""Tensors that were computed of something are kept by its content: the latest, within so many bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.errors import OutputError, WeightsError

__all__ = ["Latest"]


class Latest:
    """What was computed last. It depends on nothing but the key, so that nobody can tell whether it was kept.

    For one thread.

    Args:
        limit: bytes of memory; the tensor asked for last is kept in any case.
        folder: where all are kept, too, for other processes; what is read there is on the CPU.

    Example:
        >>> latest = Latest(2**20)
        >>> latest.get(b"a face", lambda: torch.zeros(4)) is latest.get(b"a face", lambda: torch.zeros(4))
        True
    """

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit, self._folder = limit, folder
        self._size, self._kept = 0, dict[bytes, Tensor]()

    def get(self, key: bytes, make: Callable[[], Tensor]) -> Tensor:
        """What is kept under a key, or else what `make` gives."""
        found = self._kept.pop(key, None)
        if found is None:
            found = self._read(key)
            if found is None:
                found = make()
                self._write(key, found)
            self._size += found.nbytes
        self._kept[key] = found
        while self._size > self.limit and len(self._kept) > 1:
            self._size -= self._kept.pop(next(iter(self._kept))).nbytes
        return found

    def _read(self, key: bytes) -> Tensor | None:
        if self._folder is None:
            return None
        try:
            return read_weights(self._file(self._folder, key))[0]["kept"]
        except (WeightsError, KeyError):
            return None  # not there, or damaged: it is made again

    def _write(self, key: bytes, made: Tensor) -> None:
        if self._folder is not None:
            with contextlib.suppress(OutputError):  # it only saves time
                write_weights(self._file(self._folder, key), {"kept": made}, {})

    def _file(self, folder: Path, key: bytes) -> Path:
        name = key.hex()
        return folder / name[-2:] / f"{name}.safetensors"
