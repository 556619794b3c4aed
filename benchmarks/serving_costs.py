"""Time of each attribution method for a pair, in forward passes of a pair: `relative_cost` of the methods.

    OMP_NUM_THREADS=1 python benchmarks/serving_costs.py
    OMP_NUM_THREADS=1 python benchmarks/serving_costs.py --explained ../shared/data
    OMP_NUM_THREADS=1 python benchmarks/serving_costs.py --decisions ../shared/data

With `--decisions` the CPU time of whole decisions, by torch and by the fastest runtime, which take turns.

With `--explained` what whole requests to explain take, decoding and writing included, by the default and by the fast
form: CPU time in this process on one thread, and what four clients on two cores, who wait for their answers before
they ask again, wait for at least: four times that, over two.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from serving_load import questions

from xfr_plugin.attr import METHODS, find_evidence
from xfr_plugin.explanation.pipeline import Face, decide_pair
from xfr_plugin.recognition import Recognizer, backends, load_recognizer
from xfr_plugin.reconstruction import find_decoder
from xfr_plugin.service import Deployment, ExplanationService, parse_request
from xfr_plugin.service.explaining import Explainers
from xfr_plugin.service.service import _measure


def methods() -> None:
    recognizer = load_recognizer("xfr_compact128")
    explainers = Explainers(recognizer, find_decoder(recognizer), find_evidence(recognizer))
    images = torch.rand(2, 3, *recognizer.input_size)
    probe, reference = (Face(*face) for face in zip(recognizer.embed(images), images, strict=True))
    question = decide_pair(recognizer, (probe, reference), (0.2, "given"))
    explainers.maps("leave_one_out", [question])  # what is loaded at first use is nobody's cost
    forward, _ = _measure(recognizer)
    print(f"forward pass of a pair: {1000 * forward:.1f} ms")
    print("| method | ms | forward passes | listed |\n|---|---|---|---|")
    for name, method in METHODS.items():
        quick = method.relative_cost < 50
        found = []
        for _ in range(4 if quick else 2):
            start = time.perf_counter()
            explainers.maps(name, [question])
            found.append(time.perf_counter() - start)
        spent = min(found)
        print(
            f"| {name} | {1000 * spent:.0f} | {spent / forward:.1f} | {method.relative_cost:g} |", flush=True
        )


def explained(data: Path, batch: int = 4) -> None:
    service = ExplanationService(Deployment(methods="all"))
    asked = questions(data, 24, service)
    counted = 0
    prepare = Recognizer.preprocess

    def counting(self: Recognizer, images: torch.Tensor) -> torch.Tensor:
        nonlocal counted
        counted += len(images)
        return prepare(self, images)

    Recognizer.preprocess = counting  # type: ignore[method-assign]  # of this process only
    print("| method | faces embedded | CPU ms a request (least, median) | four clients on two cores, ms |")
    print("|---|---|---|---|")
    for method in ("leave_one_out", "amortised"):
        spent = []
        for start in range(0, len(asked) - batch + 1, batch):
            requests = [
                parse_request({"probe": q.probe, "reference": q.reference, "method": method})
                for q in asked[start : start + batch]
            ]
            counted, began = 0, time.process_time()
            service.answer_all(requests, [True] * batch)
            spent.append(1000 * (time.process_time() - began) / batch)
        least, median = min(spent), float(np.median(spent))
        print(f"| {method} | {counted / batch:.0f} | {least:.0f}, {median:.0f} | {4 * least / 2:.0f} |")


def decisions(data: Path, batches: tuple[int, ...] = (1, 4, 8)) -> None:
    fastest, runtimes = ExplanationService(), backends.runtimes
    asked = questions(data, 60, fastest)
    backends.runtimes = lambda: ()  # of this process only
    torchs = ExplanationService()
    pairs = [parse_request({"probe": q.probe, "reference": q.reference}) for q in asked]
    spent: dict[tuple[bool, int], list[float]] = {}
    for _ in range(3):
        for size in batches:
            for by_torch in (True, False):
                backends.runtimes = (lambda: ()) if by_torch else runtimes
                service, began = torchs if by_torch else fastest, time.process_time()
                for start in range(0, len(pairs), size):
                    some = pairs[start : start + size]
                    service.answer_all(some, [False] * len(some))
                took = 1000 * (time.process_time() - began) / len(pairs)
                spent.setdefault((by_torch, size), []).append(took)
    print("| CPU ms a decision (median) | torch | fastest runtime | ratio |\n|---|---|---|---|")
    for size in batches:
        slow, fast = (float(np.median(spent[by_torch, size])) for by_torch in (True, False))
        print(f"| in batches of {size} | {slow:.1f} | {fast:.1f} | {fast / slow:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--explained", type=Path, help="folder with faces/lfw112")
    parser.add_argument("--decisions", type=Path, help="the same folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.explained:
        explained(options.explained)
    elif options.decisions:
        decisions(options.decisions)
    else:
        methods()


if __name__ == "__main__":
    main()
