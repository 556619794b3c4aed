"""Milliseconds of a forward pass by means of computing it: torch, folded, channels last, onnxruntime, OpenVINO.

All means take turns in one run, and the least of several times counts, as other programs only ever add to it. Beside
the times stand the largest difference of unit embeddings from torch's, and what making each means costs once.

    python benchmarks/forward_passes.py --recognizer xfr_compact128 --recognizer mobilefacenet_ms1m
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from xfr_plugin.recognition import Recognizer, backends, load_recognizer
from xfr_plugin.recognition.folding import folded_recognizer
from xfr_plugin.recognition.self_test import faces_of_nobody


def made(name: str, recognizer: Recognizer) -> Recognizer:
    if name == "torch":
        return recognizer
    if name.startswith("torch"):
        return folded_recognizer(recognizer)
    backends.runtimes = lambda: (name,)  # one at a time
    fresh = recognizer.with_network(recognizer.network)
    fast = fresh.for_forward_passes(backends.PAYS)
    if fast is fresh:
        raise SystemExit(f"{name} does not give the same embeddings, or is not installed")
    return fast


def layout(name: str, images: Tensor) -> Tensor:
    last = name == "torch, folded, channels last"
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.no_grad()
def measure(recognizer: Recognizer, threads: int, rounds: int, batches: list[int]) -> None:
    torch.set_num_threads(threads)
    names = ("torch", "torch, folded", "torch, folded, channels last", *backends.runtimes())
    costs, means = {}, {}
    for name in names:
        start = time.perf_counter()
        means[name] = made(name, recognizer)
        costs[name] = time.perf_counter() - start
    faces = faces_of_nobody(recognizer.input_size)
    print(f"\n{recognizer.name}, {threads} thread{'s' * (threads > 1)}: milliseconds an image\n")
    columns = (*(f"batch {batch}" for batch in batches), "largest difference", "made once, s")
    print(f"| means | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    least = {(name, batch): float("inf") for name in names for batch in batches}
    for _ in range(rounds):
        for batch in batches:
            images = faces.repeat(batch // len(faces) + 1, 1, 1, 1)[:batch]
            for name in names:
                given = layout(name, images)
                took = seconds(lambda: means[name](given))  # noqa: B023  # called at once
                least[name, batch] = min(least[name, batch], 1000 * took / batch)
    expected = recognizer(faces)
    for name in names:
        difference = float((means[name](layout(name, faces)) - expected).abs().max())
        times = " | ".join(f"{least[name, batch]:.2f}" for batch in batches)
        print(f"| {name} | {times} | {difference:.1e} | {costs[name]:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", action="append", default=None)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64, 128])
    arguments = parser.parse_args()
    runtimes = backends.runtimes
    for name in arguments.recognizer or ["xfr_compact128", "mobilefacenet_ms1m"]:
        for threads in arguments.threads:
            backends.runtimes = runtimes
            measure(load_recognizer(name), threads, arguments.rounds, arguments.batches)


if __name__ == "__main__":
    main()
