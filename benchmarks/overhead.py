"""How much CPU time a method takes beyond the network's own work.

For one pair, warm, on one thread: CPU seconds of `explain_prepared` (images and embeddings given, as in `explain`)
over passes × the best CPU time of a pass. Passes are counted by their operations: those of all convolutions and
matrix products of the call, in units of a forward pass of one face (an input gradient counts about one more; networks
of the method's own count too). The best pass is that of the network with BatchNorm folded in, per face, in the best
of several batch sizes. Also: the first call of a new process over the second.

    python benchmarks/overhead.py [--recognizer xfr_compact128] [--methods lrp,ebp] [--repeats 5] [--first]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from xfr_plugin.attr import METHODS
from xfr_plugin.attr._base.prepared import Prepared
from xfr_plugin.explanation.pipeline import embed_faces
from xfr_plugin.faces import prepare_face
from xfr_plugin.faces.lfw import image_path
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.folding import folded_recognizer
from xfr_plugin.recognition.zoo import data_root

PAIR = (image_path("Abel_Pacheco", 1), image_path("Abel_Pacheco", 4))
BATCHES = (1, 2, 4, 8, 16, 32)
SLOW = 50
"""Methods that take longer than so many faces' passes, in thousands of them, are left out unless they are named."""


def prepared(recognizer: Recognizer, layers: tuple[str, ...]) -> tuple[Prepared, Prepared]:
    folder = data_root() / "faces" / "lfw112"
    aligned = [prepare_face(folder / name, recognizer.input_size, alignment="aligned") for name in PAIR]
    faces = embed_faces(recognizer, aligned, layers)
    regions = find_regions(torch.stack([face.image for face in faces]))
    sides = [
        Prepared(
            images=face.image[None].contiguous(memory_format=torch.channels_last),
            units=face.unit[None],
            maps={name: values[None] for name, values in face.maps.items()},
            regions=[own],
        )
        for face, own in zip(faces, regions, strict=True)
    ]
    return sides[0], sides[1]


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    """The least of several calls: what else runs on the machine can only add."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


class Operations(TorchDispatchMode):
    """Counts; torch's own counter hooks modules, which relevance rules do not bear."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        self.count += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        return result


def operations(function: Callable[[], object]) -> int:
    with Operations() as counter:
        function()
    return int(counter.count)


@torch.no_grad()
def best_pass(recognizer: Recognizer, repeats: int) -> tuple[float, int]:
    """CPU seconds and operations of a forward pass of one face."""
    folded = folded_recognizer(recognizer)
    seconds = []
    for size in BATCHES:
        images = torch.rand(size, 3, *recognizer.input_size).contiguous(memory_format=torch.channels_last)
        folded(images)
        seconds.append(cpu_seconds(lambda images=images: folded(images), repeats) / size)
    return min(seconds), operations(lambda: recognizer(images)) // BATCHES[-1]


def of_two(recognizer: Recognizer, repeats: int) -> tuple[float, float]:
    """CPU seconds of a forward, and of a forward and backward pass, of the two faces of a pair in one batch."""
    folded = folded_recognizer(recognizer)
    images = torch.rand(2, 3, *recognizer.input_size).contiguous(memory_format=torch.channels_last)
    leaf = images.clone().requires_grad_()

    def both() -> object:
        units = folded(leaf)
        return torch.autograd.grad(units, leaf, torch.ones_like(units))

    with torch.no_grad():
        forward = cpu_seconds(lambda: folded(images), repeats)
    return forward, cpu_seconds(both, repeats)


def explaining(recognizer: Recognizer, name: str) -> Callable[[], object]:
    attribution = METHODS[name].build(recognizer, recognizer.threshold)
    sides = prepared(recognizer, tuple(attribution.layers))
    return lambda: attribution.explain_prepared(*sides, errors=True)


def first_call(source: str, name: str) -> None:
    """Seconds of CPU of the first two calls, printed; run in a process of its own."""
    explain = explaining(load_recognizer(source), name)
    print(*(cpu_seconds(explain, 1) for _ in range(2)))


def measured_first(source: str, name: str) -> float:
    command = [sys.executable, __file__, "--recognizer", source, "--methods", name, "--child"]
    found = []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = map(float, done.stdout.split())
        found.append((first, first / second))
    return min(found)[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--methods")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--first", action="store_true", help="also the first call over the second")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        first_call(arguments.recognizer, arguments.methods)
        return
    recognizer = load_recognizer(arguments.recognizer)
    seconds, unit = best_pass(recognizer, arguments.repeats)
    console = Console(width=100)
    size = f"{unit / 1e6:.0f} M operations"
    console.print(f"{arguments.recognizer}: a pass takes {1000 * seconds:.2f} ms of CPU, {size}")
    table = Table("method", "CPU ms", "passes", "CPU / (passes × best)", "first / second call")
    names = arguments.methods.split(",") if arguments.methods else list(METHODS)
    for name in names:
        if not METHODS[name].cls.available_for(recognizer):
            continue
        explain = explaining(recognizer, name)
        explain()
        passes = operations(explain) / unit
        if not arguments.methods and passes > 1000 * SLOW:
            continue
        spent = cpu_seconds(explain, arguments.repeats)
        first = f"{measured_first(arguments.recognizer, name):.2f}" if arguments.first else ""
        table.add_row(
            name, f"{1000 * spent:.1f}", f"{passes:.1f}", f"{spent / (passes * seconds):.2f}", first
        )
    console.print(table)
    forward, both = of_two(recognizer, arguments.repeats)
    console.print(
        f"Two faces in a batch, all that a method of few passes has: forward {forward / (2 * seconds):.2f}, forward "
        f"and backward {both / (4 * seconds):.2f} of as many best passes. Relevance also splits and divides every "
        "layer's values; DeepLift copies and compares them: work that is none of a pass."
    )


if __name__ == "__main__":
    main()
