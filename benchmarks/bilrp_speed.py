"""BiLRP and channel relevance: time for a pair beside the loop that one writes first, in one run.

    python benchmarks/bilrp_speed.py [--recognizers xfr_compact128 faceid_plain]

The loop is Zennit's backward pass for each channel. Ours: 11 named regions, a 14×14 grid, random projections, and the
maps of all channels of both faces. The pair is the first genuine one of the official LFW development test set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from zennit.attribution import Gradient

from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import image_path
from xfr_plugin.lrp.attributors import unit_embeddings
from xfr_plugin.lrp.bilrp import BiLRP, region_masks
from xfr_plugin.lrp.channel_relevance import ChannelRelevance
from xfr_plugin.lrp.choice import composite_for
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root

GRID = 14


def network_input(recognizer: Recognizer, names: list[str]) -> Tensor:
    folder = data_root() / "faces" / "lfw112"
    faces = [fit_aligned(load_photo(folder / name), recognizer.input_size) for name in names]
    images = torch.stack([torch.tensor(face).permute(2, 0, 1).float() / 255 for face in faces])
    return recognizer.preprocess(images)


def naive(recognizer: Recognizer, pair: Tensor) -> Tensor:
    """Zennit's attributor for every channel in turn, then the products of all pooled maps."""
    masks = region_masks(None, pair)
    result = torch.zeros(len(masks), len(masks))
    composite = composite_for(recognizer)
    with Gradient(recognizer.network, composite) as attributor:
        channels = attributor(pair)[0].shape[1]
        for k in range(channels):
            one_hot = torch.eye(channels)[k]
            _, maps = attributor(pair, lambda output, row=one_hot: unit_embeddings(output) * row)
            pooled = torch.einsum("mchw,phw->mp", maps, masks)
            result += torch.outer(pooled[0], pooled[1])
    return result


def timed(function: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    function()  # warm up
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), value


def speed(recognizer: Recognizer, pair: Tensor, repeats: int) -> Table:
    def bilrp(**options: object) -> Callable[[], Tensor]:
        return lambda: BiLRP(recognizer.network, composite_for(recognizer), **options)(pair)[1][0]

    variants: dict[str, Callable[[], Tensor]] = {
        "11 regions": bilrp(),
        f"{GRID}×{GRID} grid": bilrp(regions=GRID),
        f"{GRID}×{GRID} grid, 32 projections": bilrp(regions=GRID, projections=32),
        "maps of all channels": lambda: ChannelRelevance(recognizer.network, composite_for(recognizer))(pair)[
            1
        ],
    }
    start = time.perf_counter()
    expected = naive(recognizer, pair)
    loop = time.perf_counter() - start
    table = Table("what, for one pair", "seconds", "loop / this", title="time")
    table.add_row("loop over channels, 11 regions", f"{loop:.2f}", "1.0")
    for name, function in variants.items():
        seconds, value = timed(function, repeats)
        if name == "11 regions":
            error = float((value - expected).abs().max() / expected.abs().max())
            name += f" (differs by {error:.0e} from the loop)"
        table.add_row(name, f"{seconds:.2f}", f"{loop / seconds:.1f}")
    return table


def genuine_pair() -> list[str]:
    lines = (data_root() / "faces" / "pairsDevTest.txt").read_text(encoding="utf-8").splitlines()[1:]
    name, first, second = next(line.split() for line in lines if len(line.split()) == 3)
    return [image_path(name, int(first)), image_path(name, int(second))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizers", nargs="+", default=["xfr_compact128", "faceid_plain"])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    console = Console(width=110)
    for name in arguments.recognizers:
        recognizer = load_recognizer(name)
        pair = network_input(recognizer, genuine_pair())
        console.print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads")
        console.print(speed(recognizer, pair, arguments.repeats))


if __name__ == "__main__":
    main()
