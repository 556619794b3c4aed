"""FGGB against a straightforward one-channel-at-a-time loop, in one run on one machine.

Three implementations of the same map for one pair of faces: the loop that one writes first (forward and backward for
every channel of each face), the loop that shares the forward pass, and ours. Each runs in a process of its own, so
that its peak memory is its own (read as Linux tells it), and is timed at its second call; they must agree to 1e-5 of
the map's maximum.

    python benchmarks/fggb_speed.py [--recognizer mobilefacenet_ms1m] [--repeats 3] [--chunks 2 8 16 64]
        [--memories 32 64 128]
    python benchmarks/fggb_speed.py --bound  # what backward passes alone would take
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr import Fggb
from xfr_plugin.errors import InputError
from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import image_path
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.folding import safely_folded
from xfr_plugin.recognition.zoo import data_root

TAU = 0.28
PAIR = (image_path("Abel_Pacheco", 1), image_path("Abel_Pacheco", 4))


def load_pair(recognizer: Recognizer) -> tuple[Tensor, Tensor]:
    faces = [
        fit_aligned(load_photo(data_root() / "faces" / "lfw112" / name), recognizer.input_size)
        for name in PAIR
    ]
    probe, reference = (torch.tensor(face).permute(2, 0, 1)[None].float() / 255 for face in faces)
    return probe, reference


def naive_loop(recognizer: Recognizer, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Forward and backward for every channel of each face."""
    maps = []
    for image, partner in (pair, pair[::-1]):
        unit, other = recognizer.embed(image)[0], recognizer.embed(partner)[0]
        saliency = torch.zeros_like(image)
        for k in range(len(unit)):
            leaf = image.clone().requires_grad_()
            recognizer.features(leaf)[0, k].backward()
            saliency += channel_map(leaf.grad) * (unit[k] * other[k] - TAU / len(unit))
        maps.append(saliency)
    return torch.cat(maps)


def shared_loop(recognizer: Recognizer, pair: tuple[Tensor, Tensor]) -> Tensor:
    """One forward pass for both faces, one backward pass for every channel."""
    leaf = torch.cat(pair).requires_grad_()
    features = recognizer.features(leaf)
    units = functional.normalize(features.detach(), dim=1)
    saliency = torch.zeros_like(leaf)
    for k in range(units.shape[1]):
        (gradient,) = torch.autograd.grad(features[:, k].sum(), leaf, retain_graph=True)
        evidence = units[0, k] * units[1, k] - TAU / units.shape[1]
        saliency = saliency + channel_map(gradient) * evidence
    return saliency.detach()


def channel_map(gradient: Tensor) -> Tensor:
    grey = gradient.abs().mean(dim=1, keepdim=True)
    return (grey / grey.flatten(1).norm(dim=1).view(-1, 1, 1, 1) / 3).expand_as(gradient)


def ours(option: str, value: int) -> Callable[[Recognizer, tuple[Tensor, Tensor]], Tensor]:
    return lambda recognizer, pair: torch.cat(Fggb(recognizer, TAU, **{option: value}).attribute(pair))


def measure(name: str, argument: int, source: str, queue: multiprocessing.Queue) -> None:
    recognizer = load_recognizer(source)
    pair = load_pair(recognizer)
    function = {"naive": naive_loop, "shared": shared_loop}.get(name) or ours(name, argument)
    recognizer.embed(torch.cat(pair))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
    before = peak()
    try:
        function(recognizer, pair)  # warm up
    except InputError as error:  # less memory than it takes
        queue.put(str(error))
        return
    start = time.perf_counter()
    maps = function(recognizer, pair)
    seconds = time.perf_counter() - start
    queue.put((seconds, (peak() - before) / 1024, maps.numpy()))


def peak() -> int:
    """Most memory that this process had, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def run(name: str, argument: int, source: str) -> tuple[float, float, Tensor] | str:
    """Seconds, MiB and maps; or why it refuses."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(name, argument, source, queue))
    process.start()
    measured = queue.get()
    process.join()
    if isinstance(measured, str):
        return measured
    seconds, memory, maps = measured
    return seconds, memory, torch.from_numpy(maps)


def bound(source: str, repeats: int) -> None:
    """Print what the loop that shares its forward pass takes, and as many backward passes in batches alone."""
    recognizer = load_recognizer(source)
    pair = load_pair(recognizer)
    images = torch.cat(pair)
    folded = safely_folded(recognizer, images)
    assert isinstance(folded, Recognizer)
    gradients = len(images) * recognizer.embed(images).shape[1]
    runs: dict[str, Callable[[], object]] = {"loop": lambda: shared_loop(recognizer, pair)}
    for faces in (2, 4, 8, 16, 32):
        copies = images.repeat(faces // 2, 1, 1, 1)
        runs[f"backward passes of {faces} faces"] = backward(folded, copies, gradients // faces)
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats + 1):  # the first warms up
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - start)
    for name, seconds in least.items():
        print(f"{name}: {seconds:.2f} s, {least['loop'] / seconds:.2f} times as fast")


def backward(recognizer: Recognizer, images: Tensor, count: int) -> Callable[[], object]:
    """Backward passes of one channel of each face."""
    leaf = images.requires_grad_()
    total = recognizer.features(leaf)[:, 0].sum()
    return lambda: [torch.autograd.grad(total, leaf, retain_graph=True) and None for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="mobilefacenet_ms1m")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunks", type=int, nargs="+", default=[2, 8, 16, 64])
    parser.add_argument("--memories", type=int, nargs="*", default=[32, 64, 128], help="in MiB")
    parser.add_argument("--bound", action="store_true")
    arguments = parser.parse_args()
    if arguments.bound:
        bound(arguments.recognizer, arguments.repeats)
        return
    variants = [
        ("naive", 0),
        ("shared", 0),
        *(("chunk_size", chunk) for chunk in arguments.chunks),
        *(("memory", memory) for memory in arguments.memories),
    ]
    results: dict[tuple[str, int], list[tuple[float, float, Tensor]]] = {variant: [] for variant in variants}
    for _ in range(arguments.repeats):
        for variant in variants:  # in turn, so that a drift of the machine meets all alike
            measured = run(*variant, arguments.recognizer)
            if isinstance(measured, str):
                print(variant, measured)
            else:
                results[variant].append(measured)
    reference = results["naive", 0][0][2]
    shared = statistics.median(seconds for seconds, _, _ in results["shared", 0])
    naive = statistics.median(seconds for seconds, _, _ in results["naive", 0])
    table = Table(
        "implementation",
        "seconds",
        "naive loop / this",
        "shared loop / this",
        "extra peak MiB",
        "max difference",
    )
    for (name, value), runs in results.items():
        if not runs:
            continue
        seconds = statistics.median(s for s, _, _ in runs)
        memory = statistics.median(m for _, m, _ in runs)
        difference = max(float((maps - reference).abs().max() / reference.abs().max()) for _, _, maps in runs)
        label = f"ours, {name}={value}" if value else name
        table.add_row(
            label,
            f"{seconds:.2f}",
            f"{naive / seconds:.2f}",
            f"{shared / seconds:.2f}",
            f"{memory:.0f}",
            f"{difference:.1e}",
        )
    console = Console(width=110)
    console.print(
        f"{arguments.recognizer}, torch {torch.__version__}, {torch.get_num_threads()} threads, one pair"
    )
    console.print(table)


if __name__ == "__main__":
    main()
