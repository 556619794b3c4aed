"""BiLRP and channel relevance: time for a pair, error of the random projection, and whether like regions match.

    python benchmarks/bilrp_speed.py [--recognizers xfr_compact128 faceid_plain] [--pairs 12]

1. Seconds for one pair, in one run: the loop that one writes first (Zennit's backward pass for each channel), ours
   for 11 named regions and for a 14×14 grid, random projections, and the maps of all channels of both faces.
2. The relative error (Frobenius) of random projections on the 14×14 grid, over five seeds.
3. On genuine pairs of the official LFW development test set: how often region i of the probe is matched most
   strongly, per area, by region i of the reference (chance 1 in 10, `outside` left out), and the share of positive
   relevance on that diagonal. Faces are aligned, so like should match like.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from zennit.attribution import Gradient

from xfr_plugin.faces import fit_aligned, load_photo, template_regions
from xfr_plugin.faces.lfw import image_path
from xfr_plugin.lrp.attributors import unit_embeddings
from xfr_plugin.lrp.bilrp import BiLRP, region_masks
from xfr_plugin.lrp.channel_relevance import ChannelRelevance
from xfr_plugin.lrp.choice import composite_for
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root

GRID = 14
COMPOSITES = ("epsilon_plus_flat_face", "epsilon_gamma_box_face", "excitation_backprop_face")


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


def projection_error(recognizer: Recognizer, pair: Tensor) -> Table:
    exact = BiLRP(recognizer.network, composite_for(recognizer), regions=GRID)(pair)[1]
    table = Table("projections", "relative error", title=f"random projection, {GRID}×{GRID} grid")
    for projections in (8, 32, 128):
        errors = []
        for seed in range(5):
            attributor = BiLRP(
                recognizer.network,
                composite_for(recognizer),
                regions=GRID,
                projections=projections,
                seed=seed,
            )
            errors.append(float((attributor(pair)[1] - exact).norm() / exact.norm()))
        table.add_row(str(projections), f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f}")
    return table


def genuine_pairs(count: int) -> Iterator[list[str]]:
    lines = (data_root() / "faces" / "pairsDevTest.txt").read_text(encoding="utf-8").splitlines()[1:]
    genuine = [line.split() for line in lines if len(line.split()) == 3]
    for name, first, second in genuine[:count]:
        yield [image_path(name, int(first)), image_path(name, int(second))]


def like_with_like(recognizer: Recognizer, count: int) -> Table:
    regions = template_regions(recognizer.input_size)
    area = torch.tensor(list(regions.areas().values()))[1:].float()
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for names in genuine_pairs(count):
        pair = network_input(recognizer, names)
        units = recognizer.network(pair).detach()
        score = float(torch.cosine_similarity(units[:1], units[1:]))
        for composite in COMPOSITES:
            for normalization in ("none", "l1"):
                for part in ("all", "specific"):
                    attributor = BiLRP(
                        recognizer.network,
                        composite_for(recognizer, composite),
                        normalization=normalization,
                        part=part,
                    )
                    matrix = attributor(pair)[1][0]
                    inside = matrix[1:, 1:]
                    hits = (inside / area).argmax(1) == torch.arange(len(inside))
                    share = inside.clamp_min(0).diagonal().sum() / inside.clamp_min(0).sum()
                    row = (float(hits.float().mean()), float(share), float(matrix.sum()) / score)
                    found.setdefault((composite, normalization, part), []).append(row)
    table = Table(
        "composite", "normalization", "part", "like first", "share on diagonal", "sum / score (median)"
    )
    table.title = f"like matches like, {count} genuine pairs"
    for key, rows in found.items():
        hit, share, ratio = zip(*rows, strict=True)
        table.add_row(
            *key,
            f"{statistics.mean(hit):.2f}",
            f"{statistics.mean(share):.2f}",
            f"{statistics.median(ratio):.3f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizers", nargs="+", default=["xfr_compact128", "faceid_plain"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=12)
    arguments = parser.parse_args()
    console = Console(width=110)
    for name in arguments.recognizers:
        recognizer = load_recognizer(name)
        pair = network_input(recognizer, next(genuine_pairs(1)))
        console.print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads")
        console.print(speed(recognizer, pair, arguments.repeats))
        console.print(projection_error(recognizer, pair))
        console.print(like_with_like(recognizer, arguments.pairs))


if __name__ == "__main__":
    main()
