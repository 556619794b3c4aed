"""Time of each attribution method for a pair, in forward passes of a pair: `relative_cost` of the methods.

OMP_NUM_THREADS=1 python benchmarks/serving_costs.py
"""

from __future__ import annotations

import time

import torch

from xfr_plugin.attr import METHODS, find_evidence
from xfr_plugin.explanation.pipeline import Face, decide_pair
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.reconstruction import find_decoder
from xfr_plugin.service.explaining import Explainers
from xfr_plugin.service.service import _measure


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
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


if __name__ == "__main__":
    main()
