"""A photograph against a gallery of stored embeddings on disk: seconds until the best are explained.

    python benchmarks/gallery.py [--rows 1000000] [--top 100] [--methods leave_one_out,amortised,xssab]

The photograph is scikit-image's astronaut (512×512); the gallery are random directions, in a file that is mapped
into memory. Each method is asked twice, in turn; the second counts. Ranking alone is measured too, beside a plain
product of a gallery that lies in memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from skimage import data

import xfr_plugin
from xfr_plugin.explanation.gallery import nearest, search


def written(path: Path, rows: int, width: int) -> None:
    """Write a gallery, some rows at a time."""
    rng = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
    for start in range(0, rows, 2**16):
        some = stored[start : start + 2**16]
        some[:] = rng.standard_normal(some.shape, dtype=np.float32)
    stored.flush()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--top", type=int, default=100)
    parser.add_argument("--methods", default="leave_one_out,amortised,xssab")
    parser.add_argument("--recognizer", default="xfr_compact128")
    settings = parser.parse_args()
    warnings.simplefilter("ignore", xfr_plugin.FaceWarning)
    recognizer = xfr_plugin.load_recognizer(settings.recognizer)
    width = recognizer.embed(torch.zeros(1, 3, *recognizer.input_size)).shape[1]
    table = Table("what", "seconds", title=f"{settings.rows:,} × {width} numbers")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.npy"
        written(path, settings.rows, width)
        stored, unit = np.load(path, mmap_mode="r"), np.ones(width)
        start = time.perf_counter()
        nearest(unit, stored, settings.top)
        table.add_row("ranking", f"{time.perf_counter() - start:.2f}")
        loaded = np.array(stored)
        start = time.perf_counter()
        np.argpartition(-(loaded @ unit.astype(np.float32)), settings.top)
        table.add_row("a plain product in memory", f"{time.perf_counter() - start:.2f}")
        for method in settings.methods.split(",") * 2:
            start = time.perf_counter()
            search(data.astronaut(), path, top=settings.top, recognizer=recognizer, method=method)
            table.add_row(f"{method}, top {settings.top}", f"{time.perf_counter() - start:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
