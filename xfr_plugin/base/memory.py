"""How much more memory a piece of work needs at its worst than was in use before it; and keeping what it frees."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

__all__ = ["PeakMemory", "keep_freed_memory", "measured_peak"]

_LARGEST = 31 * 2**20
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class PeakMemory:
    """Result of `measured_peak`, set when its block ends.

    Attributes:
        extra: bytes above what was in use before; None where it cannot be measured.
    """

    extra: int | None = None


@cache
def keep_freed_memory() -> None:
    """Let glibc keep some 60 MiB of what is freed, for the whole process.

    A pass through a network takes and frees the same memory layer by layer. glibc gives it back to the system in
    between, and getting it again page by page can take as long as the pass. It keeps twice the largest block that was
    ever mapped and freed, of up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD): so such a block is taken here, not touched,
    and freed. Other C libraries do as they do.
    """
    torch.empty(_LARGEST, dtype=torch.uint8, device="cpu")


@contextmanager
def measured_peak(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the extra peak memory of a block of code.

    On CUDA devices it is what torch's allocator gave out. On the CPU it is the resident memory of the whole process
    (all threads and libraries, convolution workspaces too), by Linux's high-water mark; memory that the C library
    keeps is given back first where it can be (glibc), since a block could otherwise use it unseen. Elsewhere, and
    where the mark cannot be reset, `extra` stays None. Resident memory is counted in pages, and other work of the
    process counts along: differences of a few MiB mean nothing.
    """
    peak = PeakMemory()
    gc.collect()
    before = _start(device)
    try:
        yield peak
    finally:
        after = _highest(device)
        if before is not None and after is not None:
            peak.extra = max(0, after - before)


def _start(device: torch.device) -> int | None:
    """Bytes in use now, where the mark starts again from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    _return_free_memory()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _highest(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _resident("VmHWM")


def _resident(entry: str) -> int | None:
    try:
        found = re.search(rf"{entry}:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def _return_free_memory() -> None:
    """Ask glibc for the pages that nothing uses; other C libraries have no such call."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
