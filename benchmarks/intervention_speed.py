"""Speed of evidence by intervention, on this machine, in one run.

    python benchmarks/intervention_speed.py --recognizer xfr_compact128 --threads 2
    python benchmarks/intervention_speed.py --threads 2 --in-a-row --runs 15  # the default only, call after call
    python benchmarks/intervention_speed.py --threads 1 --processor  # the default only, where others use the machine

- the default, both faces of a pair, crops in memory, regions found, and what it consists of, one after the other in
  each run: median and least of some runs;
- exact Shapley values of eight regions, one donor, and the share of the time that the bare forward passes of as many
  faces take in the best batches and by the fastest runtime;
- values of a pair whose effects are kept.

Times are seconds; the faces are composites of nobody.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr import LeaveOneOut, PairShapley, region_effects
from xfr_plugin.attr._base.masks import ranges
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.swaps.donors import composite_faces
from xfr_plugin.swaps.regions import FINE_REGIONS, regions_of


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--processor", action="store_true", help="processor time of the default, no clock")
    parser.add_argument(
        "--in-a-row", action="store_true", help="the default alone, without its parts between"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = load_recognizer(options.recognizer)
    faces = composite_faces(12, recognizer.input_size)[-2:]
    clock = time.process_time if options.processor else time.perf_counter
    report: dict[str, object] = {**of_the_default(recognizer, faces, options.runs, clock, options.in_a_row)}
    if not (options.processor or options.in_a_row):
        report |= measured(recognizer, faces, options.runs)
    print(json.dumps(report, indent=1))


def of_the_default(
    recognizer: Recognizer, faces: Tensor, runs: int, clock: Callable[[], float], alone: bool = False
) -> dict[str, tuple[float, float]]:
    """Median and least seconds of the default, and of its parts."""
    pair = (faces[:1], faces[1:])
    four, two = LeaveOneOut(recognizer), LeaveOneOut(recognizer, donors=2)
    fast, batch = fast_recognizer(recognizer), faces[:1].repeat(PERTURBATIONS_PER_EVAL, 1, 1, 1)
    passes = 2 + 4 * sum(int(own.present.sum()) for own in regions_of(find_regions(faces), FINE_REGIONS))
    batches = list(ranges(passes, len(batch)))
    calls: dict[str, Callable[[], object]] = {
        "verify": lambda: recognizer.embed(faces),
        "regions": lambda: find_regions(faces),
        f"{passes} forward passes": lambda: [fast(batch[: some.stop - some.start]) for some in batches],
        "leave_one_out, donors=4": lambda: four.attribute(pair),
        "leave_one_out, donors=2": lambda: two.attribute(pair),
    }
    if alone:
        calls = {name: call for name, call in calls.items() if call is calls["leave_one_out, donors=4"]}
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 2):
        for name, call in calls.items():
            start = clock()
            call()
            if run > 1:
                spent[name].append(clock() - start)
    return {
        name: (round(float(np.median(seconds)), 4), round(min(seconds), 4)) for name, seconds in spent.items()
    }


def measured(recognizer: Recognizer, faces: Tensor, runs: int) -> dict[str, float]:
    """All other figures."""
    pair, exact = (faces[:1], faces[1:]), PairShapley(recognizer, donors=1)
    passes = 2 + 2 * 255
    fast = fast_recognizer(recognizer)
    best = min(forward_rate(fast, faces, batch) for batch in (1, 8, 16, 32, 64))
    whole = median(lambda: exact.attribute(pair), runs)
    (own,), (other,) = (region_effects(exact, face) for face in pair)
    return {
        "shapley, 8 regions, 1 donor": round(whole, 3),
        "share of the best forward rate": round(passes * best / whole, 3),
        "values from kept effects": round(median(lambda: own.values(other.whole), runs), 6),
    }


def forward_rate(recognizer: Recognizer, faces: Tensor, batch: int) -> float:
    """Seconds a face in batches of this size, the least of some."""
    images = faces[:1].expand(batch, -1, -1, -1).contiguous()
    return min(timed(lambda: recognizer.embed(images)) for _ in range(5)) / batch


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
