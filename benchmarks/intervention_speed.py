"""Speed of evidence by intervention, on this machine, in one run.

    python benchmarks/intervention_speed.py --recognizer xfr_compact128 --threads 2

- the default, both faces of a pair, crops in memory, regions found: median of some runs;
- exact Shapley values of eight regions, one donor, and the share of the time that the bare forward passes of as many
  faces take in the best batches;
- values of a pair whose effects are kept;
- a gallery: 1,000,000 stored embeddings in a file, the best 100 found and explained exactly, the probe's effects
  computed in the same time.

Times are seconds; the faces are composites of nobody, the gallery is random.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr import LeaveOneOut, PairShapley, region_effects
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.swaps.donors import composite_faces

GALLERY, BEST, CHUNK = 1_000_000, 100, 50_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = load_recognizer(options.recognizer)
    faces = composite_faces(12, recognizer.input_size)[-2:]
    print(json.dumps(measured(recognizer, faces, options.runs), indent=1))


def measured(recognizer: Recognizer, faces: Tensor, runs: int) -> dict[str, float]:
    """All figures."""
    pair = (faces[:1], faces[1:])
    default, exact = LeaveOneOut(recognizer), PairShapley(recognizer, donors=1)
    passes = 2 + 2 * 255
    best = min(forward_rate(recognizer, faces, batch) for batch in (1, 8, 16, 32, 64))
    whole = median(lambda: exact.attribute(pair), runs)
    (own,), (other,) = (region_effects(exact, face) for face in pair)
    return {
        "verify": round(median(lambda: recognizer.embed(faces), runs), 4),
        "regions": round(median(lambda: find_regions(faces), runs), 4),
        "leave_one_out, donors=4": round(median(lambda: default.attribute(pair), runs), 4),
        "leave_one_out, donors=2": round(
            median(lambda: LeaveOneOut(recognizer, donors=2).attribute(pair), runs), 4
        ),
        "shapley, 8 regions, 1 donor": round(whole, 3),
        "share of the best forward rate": round(passes * best / whole, 3),
        "values from kept effects": round(median(lambda: own.values(other.whole), runs), 6),
        f"gallery of {GALLERY}, best {BEST} explained": round(gallery(recognizer, faces[:1], exact), 2),
    }


def forward_rate(recognizer: Recognizer, faces: Tensor, batch: int) -> float:
    """Seconds a face in batches of this size, the least of some."""
    images = faces[:1].expand(batch, -1, -1, -1).contiguous()
    return min(timed(lambda: recognizer.embed(images)) for _ in range(5)) / batch


def gallery(recognizer: Recognizer, probe: Tensor, game: PairShapley) -> float:
    """Seconds to find the best of a gallery on disk, and to explain them."""
    width = recognizer.embed(probe).shape[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.npy"
        stored = np.lib.format.open_memmap(path, "w+", np.float32, (GALLERY, width))
        random = np.random.default_rng(0)
        for start in range(0, GALLERY, CHUNK):
            drawn = random.standard_normal((CHUNK, width), dtype=np.float32)
            stored[start : start + CHUNK] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        stored.flush()

        def explained() -> None:
            units = np.load(path, mmap_mode="r")
            (effects,) = region_effects(game, probe)
            scores = np.concatenate(
                [units[start : start + CHUNK] @ effects.whole.numpy() for start in range(0, GALLERY, CHUNK)]
            )
            best = np.argpartition(-scores, BEST)[:BEST]
            assert effects.values(torch.from_numpy(units[best])).shape[0] == BEST

        return timed(explained)


def median(call: Callable[[], object], runs: int) -> float:
    """Seconds of a call, once it is warm."""
    call()
    return float(np.median([timed(call) for _ in range(runs)]))


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
