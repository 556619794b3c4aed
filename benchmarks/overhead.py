"""How much CPU time a method takes beyond the network's own work.

For one pair, warm, on one thread: CPU seconds of `explain_prepared` (images and embeddings given, as in `explain`)
over passes × the best CPU time of a pass. Passes of torch are counted by their operations: those of all convolutions
and matrix products of the call, in units of a forward pass of one face, forward and backward (networks of the
method's own, and the passes that a relevance rule makes through a layer, count too); passes of an export
(`recognition.backends`) by faces. A pass has the price of one of the network with BatchNorm folded in, or of the
export. An input gradient has the operations of a forward pass, and takes longer, so it has a price of its own. `best`
takes the price of each in the best of several batch sizes; `in twos` what they take in a batch of two, which is all
that a pair gives a method of few passes. Also: milliseconds beyond the latter, and what of them looks, after a pass,
whether the network is as it was; and the first call of a new process over the second. Each method's line is printed
when it is known.

    python benchmarks/overhead.py [--recognizer xfr_compact128] [--methods lrp,ebp] [--repeats 5] [--first]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from xfr_plugin.attr import METHODS
from xfr_plugin.attr._base.prepared import Prepared
from xfr_plugin.base.replicas import state_of
from xfr_plugin.explanation.pipeline import embed_faces
from xfr_plugin.faces import prepare_face
from xfr_plugin.faces.lfw import image_path
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.backends import PAYS
from xfr_plugin.recognition.black_boxes import BlackBox
from xfr_plugin.recognition.folding import folded_recognizer
from xfr_plugin.recognition.onnx_files import OnnxNetwork
from xfr_plugin.recognition.openvino_files import OpenVinoNetwork
from xfr_plugin.recognition.zoo import data_root

PAIR = (image_path("Abel_Pacheco", 1), image_path("Abel_Pacheco", 4))
BATCHES = (1, 2, 4, 8, 16, 32)


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
    """Counts operations of torch, and faces that an export embeds.

    Torch's own counter hooks modules, which relevance rules do not bear.
    """

    forward = 0
    backward = 0
    exported = 0

    def __enter__(self) -> Operations:
        self._embed = OnnxNetwork._embed, OpenVinoNetwork._embed
        for cls, embed in zip((OnnxNetwork, OpenVinoNetwork), self._embed, strict=True):
            cls._embed = self._counting(embed)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        OnnxNetwork._embed, OpenVinoNetwork._embed = self._embed
        super().__exit__(*error)

    def _counting(self, embed: Callable[..., object]) -> Callable[..., object]:
        def run(network: BlackBox, images: Tensor) -> object:
            self.exported += len(images)
            return embed(network, images)

        return run

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        count = formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        if "backward" in str(func):
            self.backward += count
        else:
            self.forward += count
        return result


def operations(function: Callable[[], object]) -> Operations:
    with Operations() as counter:
        function()
    return counter


def in_batch(recognizer: Recognizer, size: int) -> Tensor:
    return torch.rand(size, 3, *recognizer.input_size).contiguous(memory_format=torch.channels_last)


def passes(recognizer: Recognizer, size: int, repeats: int) -> tuple[float, float]:
    """CPU seconds of a forward and of a backward pass of a face, in a batch of that size."""
    images = in_batch(recognizer, size)
    leaf = images.clone().requires_grad_()

    def both() -> object:
        units = recognizer(leaf)
        return torch.autograd.grad(units, leaf, torch.ones_like(units))

    def forward() -> object:
        with torch.no_grad():
            return recognizer(images)

    both()
    taken = cpu_seconds(forward, repeats)
    return taken / size, (cpu_seconds(both, repeats) - taken) / size


@dataclass(frozen=True)
class Prices:
    """CPU seconds of a forward and of a backward pass of one face.

    Attributes:
        best: in the best batch.
        twos: in a batch of two.
        exported: a forward pass of the export, in the best batch.
        unit: operations of a forward pass.
    """

    best: tuple[float, float]
    twos: tuple[float, float]
    exported: float
    unit: int

    @classmethod
    def of(cls, recognizer: Recognizer, repeats: int) -> Prices:
        unit = operations(lambda: recognizer(in_batch(recognizer, 8))).forward // 8
        folded, fast = folded_recognizer(recognizer), recognizer.for_forward_passes(PAYS)
        by_size = {size: passes(folded, size, repeats) for size in BATCHES}
        best = tuple(min(pair[i] for pair in by_size.values()) for i in (0, 1))
        batches = [in_batch(fast, size) for size in BATCHES]
        with torch.no_grad():
            exported = min(
                cpu_seconds(lambda b=b: fast(b), repeats) / len(b) for b in batches for _ in (0, 1)
            )
        return cls(best, by_size[2], exported, unit)


def looking(recognizer: Recognizer, repeats: int) -> float:
    """CPU seconds of looking whether the network is as it was, after a pass, which leaves no cache warm."""
    folded, faces = folded_recognizer(recognizer), in_batch(recognizer, 2)
    with torch.no_grad():
        both = cpu_seconds(lambda: (folded(faces), state_of(recognizer)), 5 * repeats)
        return both - cpu_seconds(lambda: folded(faces), 5 * repeats)


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
    prices = Prices.of(recognizer, arguments.repeats)
    shown = [f"{1000 * seconds:.2f}" for seconds in (*prices.best, *prices.twos, prices.exported)]
    print(
        f"{arguments.recognizer}: ms of CPU a face and pass: forward {shown[0]}, backward {shown[1]}; in a batch of "
        f"two {shown[2]}, {shown[3]}; of the export {shown[4]}; {prices.unit / 1e6:.0f} M operations; "
        f"looking whether the network is as it was {1000 * looking(recognizer, arguments.repeats):.2f}"
    )
    print_row(
        "method", "CPU ms", "forward", "backward", "exported", "/ best", "/ in twos", "ms beyond", "first"
    )
    for name in arguments.methods.split(",") if arguments.methods else METHODS:
        if METHODS[name].cls.available_for(recognizer):
            measured = row(recognizer, name, prices, arguments.repeats)
            first = [f"{measured_first(arguments.recognizer, name):.2f}"] if arguments.first else []
            print_row(name, *measured, *first)


def row(recognizer: Recognizer, name: str, prices: Prices, repeats: int) -> list[str]:
    explain = explaining(recognizer, name)
    explain()
    counted = operations(explain)
    done = counted.forward / prices.unit, counted.backward / prices.unit
    spent = cpu_seconds(explain, repeats)
    best, twos = (
        sum(count * each for count, each in zip(done, price, strict=True))
        + counted.exported * prices.exported
        for price in (prices.best, prices.twos)
    )
    return [
        *(f"{value:.1f}" for value in (1000 * spent, *done)),
        str(counted.exported), *(f"{spent / price:.2f}" for price in (best, twos)), f"{1000 * (spent - twos):.1f}",
    ]  # fmt: skip


def print_row(name: str, *values: str) -> None:
    print(f"{name:22}", *(f"{value:>9}" for value in values), flush=True)


if __name__ == "__main__":
    main()
