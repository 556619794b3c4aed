"""Every channel of an embedding: `attribute_all_channels` against the loop over targets that one writes first.

One face, all channels, by plain gradient (Captum's Saliency, signed) and integrated gradients. Each variant runs in
a process of its own, so that its peak memory is its own, after a warm-up of two channels; variants take turns. All
must agree to 1e-2 of the largest value, for in float32 rounding
switches single rectifiers.

    python benchmarks/all_channels.py [--recognizers xfr_compact128 mobilefacenet_ms1m] [--repeats 3] [--steps 8]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from captum.attr import IntegratedGradients, Saliency
from rich.console import Console
from rich.table import Table
from torch import Tensor

from xfr_plugin.channels.all_channels import attribute_all_channels
from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import image_path
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root

VARIANTS = ("gradient loop", "gradient ours", "ig loop", "ig ours")


def load_face(recognizer: Recognizer) -> Tensor:
    photo = load_photo(data_root() / "faces" / "lfw112" / image_path("Abel_Pacheco", 1))
    face = fit_aligned(photo, recognizer.input_size)
    return torch.tensor(face).permute(2, 0, 1)[None].float() / 255


def computed(
    variant: str, recognizer: Recognizer, face: Tensor, channels: range, steps: int, chunk: int
) -> Tensor:
    kind, who = variant.split()
    if who == "ours":
        if kind == "gradient":
            return attribute_all_channels(recognizer, face, channels=channels, chunk_size=chunk)
        method = IntegratedGradients(recognizer)
        return attribute_all_channels(method, face, channels=channels, chunk_size=chunk, n_steps=steps)
    leaf = face.clone().requires_grad_()
    if kind == "gradient":
        maps = [Saliency(recognizer).attribute(leaf, target=k, abs=False) for k in channels]
    else:
        maps = [IntegratedGradients(recognizer).attribute(leaf, target=k, n_steps=steps) for k in channels]
    return torch.stack(maps, dim=1).detach()


def measure(variant: str, source: str, steps: int, chunk: int, queue: multiprocessing.Queue) -> None:
    recognizer = load_recognizer(source)
    face = load_face(recognizer)
    channels = range(recognizer.embed(face).shape[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    computed(variant, recognizer, face, channels[:2], steps, chunk)  # warm up
    start = time.perf_counter()
    maps = computed(variant, recognizer, face, channels, steps, chunk)
    seconds = time.perf_counter() - start
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    queue.put((seconds, extra / 1024, maps.numpy()))


def run(variant: str, source: str, steps: int, chunk: int) -> tuple[float, float, Tensor]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(variant, source, steps, chunk, queue))
    process.start()
    seconds, memory, maps = queue.get()
    process.join()
    return seconds, memory, torch.from_numpy(maps)


def compare(source: str, repeats: int, steps: int, chunk: int, table: Table) -> None:
    results: dict[str, list[tuple[float, float, Tensor]]] = {variant: [] for variant in VARIANTS}
    for _ in range(repeats):
        for variant in VARIANTS:  # in turn, so that a drift of the machine meets all alike
            results[variant].append(run(variant, source, steps, chunk))
    for variant in VARIANTS:
        loop = results[f"{variant.split()[0]} loop"]
        seconds = statistics.median(s for s, _, _ in results[variant])
        ratio = statistics.median(s for s, _, _ in loop) / seconds
        memory = statistics.median(m for _, m, _ in results[variant])
        expected, found = loop[0][2], results[variant][0][2]
        difference = float((found - expected).abs().max() / expected.abs().max())
        if difference > 1e-2:
            raise SystemExit(f"{source}, {variant}: differs from the loop by {difference:.1e} of the maximum")
        table.add_row(source, variant, f"{seconds:.2f}", f"{ratio:.2f}", f"{memory:.0f}", f"{difference:.0e}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizers", nargs="+", default=["xfr_compact128", "mobilefacenet_ms1m"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=16)
    arguments = parser.parse_args()
    console = Console(width=110)
    console.print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, one face, IG with {arguments.steps} steps, "
        f"chunk_size={arguments.chunk}"
    )
    for source in arguments.recognizers:
        table = Table("recognizer", "variant", "seconds", "loop / this", "extra peak MiB", "difference")
        compare(source, arguments.repeats, arguments.steps, arguments.chunk, table)
        console.print(table)


if __name__ == "__main__":
    main()
