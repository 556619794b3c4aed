"""Masking methods against their plainest correct forms, in one run on one machine.

The plain form masks one face at a time and embeds the partner again for each mask. Ours embeds the partner once,
masks in batches, shares the masks, and folds BatchNorm. Each measurement runs in a process of its own, so that its
peak memory is its own. Options are set so that there are fewer masks than by default (`--full` for the defaults):
time is proportional to their number.

The last table answers whether early layers are worth computing only where a patch changed them, with the rest of the
feature map taken from the clean face: for the patches of XFace, which change least.

    python benchmarks/perturbation_speed.py [--recognizers xfr_compact128 mobilefacenet_ms1m] [--repeats 3] [--full]
        [--methods corrrise srise xface mery_avg minplus]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from xfr_plugin.attr import METHODS
from xfr_plugin.attr._base.masks import gaussian_lattice, random_boxes, random_grids, systematic_boxes
from xfr_plugin.attr._base.scoring import gaussian_blurred
from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import image_path
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.folding import fold_batchnorm
from xfr_plugin.recognition.zoo import data_root

TAU = 0.28
PAIR = (image_path("Abel_Pacheco", 1), image_path("Abel_Pacheco", 4))
Images = tuple[Tensor, Tensor]

FEWER: dict[str, dict[str, Any]] = {
    "corrrise": {"n_masks": 60},
    "srise": {"n_masks": 60},
    "xface": {"stride": 25},
    "mery_avg": {"stride": 20},
    "minplus": {"stride": 25, "rounds": 2},
}
BATCHES = (1, 8, 32)


def load_pair(recognizer: Recognizer) -> Images:
    faces = [
        fit_aligned(load_photo(data_root() / "faces" / "lfw112" / name), recognizer.input_size)
        for name in PAIR
    ]
    probe, reference = (torch.tensor(face).permute(2, 0, 1)[None].float() / 255 for face in faces)
    return probe, reference


def score(recognizer: Recognizer, pair: Images, side: int, keep: Tensor) -> Tensor:
    """The score of one masked face; the partner is embedded again."""
    masked = recognizer(pair[side] * keep)
    return (masked * recognizer(pair[1 - side])).sum()


def plain_corrrise(recognizer: Recognizer, pair: Images, side: int, options: dict[str, Any]) -> Tensor:
    shape = pair[0].shape[2:]
    boxes = random_boxes(options["n_masks"], 3, 30, shape, 0)
    keeps = [1 - boxes.draw(slice(i, i + 1), pair[0])[0] for i in range(len(boxes))]
    scores = torch.stack([score(recognizer, pair, side, keep) for keep in keeps])
    kept = torch.stack(keeps)
    kept, scores = kept - kept.mean(dim=0), scores - scores.mean()
    norms = kept.square().sum(dim=0).sqrt() * scores.norm()
    return (scores[:, None, None] * kept).sum(dim=0) / norms.clamp_min(1e-12)


def plain_srise(recognizer: Recognizer, pair: Images, side: int, options: dict[str, Any]) -> Tensor:
    grids = random_grids(options["n_masks"], 7, 0.5, pair[0].shape[2:], 0)
    keeps = [grids.draw(slice(i, i + 1), pair[0])[0] for i in range(len(grids))]
    scores = torch.stack([score(recognizer, pair, side, keep) for keep in keeps])
    total = sum((s - scores.mean()) * keep for s, keep in zip(scores, keeps, strict=True))
    return total / (0.5 * len(keeps))


def plain_xface(recognizer: Recognizer, pair: Images, side: int, options: dict[str, Any]) -> Tensor:
    clean = score(recognizer, pair, side, torch.ones_like(pair[0]))
    total, sizes = torch.zeros(pair[0].shape[2:]), torch.zeros(pair[0].shape[2:])
    for length in (7, 14, 28):
        boxes = systematic_boxes(length, options["stride"], pair[0].shape[2:])
        deviation, covering = torch.zeros(2, *pair[0].shape[2:])
        for i in range(len(boxes)):
            box = boxes.draw(slice(i, i + 1), pair[0])[0]
            deviation += (
                box * (clean - score(recognizer, pair, side, 1 - box)) / boxes.size[0] / boxes.size[1]
            )
            covering += box
        total += deviation / covering.clamp_min(1)
        sizes += covering > 0
    return gaussian_blurred((total / sizes.clamp_min(1))[None], options["stride"])[0]


def plain_mery(recognizer: Recognizer, pair: Images, side: int, options: dict[str, Any]) -> Tensor:
    bells = gaussian_lattice(10, options["stride"], pair[0].shape[2:])
    regions = [bells.draw(slice(i, i + 1), pair[0])[0] for i in range(len(bells))]
    total = torch.zeros_like(regions[0])
    rounds = options.get("rounds", 1)
    for adding in (False, True):
        product = torch.ones_like(regions[0])
        for _ in range(rounds):
            changes = []
            now = score(recognizer, pair, side, 1 - product if adding else product)
            for region in regions:
                rest = product * (1 - region)
                then = score(recognizer, pair, side, 1 - rest if adding else rest)
                changes.append(then - now if adding else now - then)
            total += sum(c * region for c, region in zip(changes, regions, strict=True)) / rounds / 2
            product = product * (1 - regions[int(torch.stack(changes).argmax())])
    return total / sum(regions)


PLAIN: dict[str, Callable[[Recognizer, Images, int, dict[str, Any]], Tensor]] = {
    "corrrise": plain_corrrise,
    "srise": plain_srise,
    "xface": plain_xface,
    "mery_avg": plain_mery,
    "minplus": plain_mery,
}


def measure(
    method: str, batch: int, source: str, options: dict[str, Any], queue: multiprocessing.Queue
) -> None:
    """One call, by our class in batches, or, with batch 0, in the plain form."""
    recognizer = load_recognizer(source)
    pair = load_pair(recognizer)
    recognizer.embed(torch.cat(pair))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if batch:
        maps = METHODS[method].build(recognizer, TAU, **options).attribute(pair, perturbations_per_eval=batch)
        saliency = torch.cat(maps).sum(dim=1)
    else:
        with torch.no_grad():
            every = {**METHODS[method].options(), **options}
            saliency = torch.stack([PLAIN[method](recognizer, pair, side, every) for side in range(2)])
    seconds = time.perf_counter() - start
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    queue.put((seconds, extra / 1024, saliency.numpy()))


def run(method: str, batch: int, source: str, options: dict[str, Any]) -> tuple[float, float, Tensor]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(method, batch, source, options, queue))
    process.start()
    seconds, memory, maps = queue.get()
    process.join()
    return seconds, memory, torch.from_numpy(maps)


def method_table(method: str, source: str, repeats: int, full: bool) -> Table:
    table = Table("method", "form", "seconds", "plain / this", "extra peak MiB", "max difference")
    fewer = FEWER[method]
    batches = (0, *(BATCHES if method == "corrrise" else (8,)))
    results: dict[int, list[tuple[float, float, Tensor]]] = {batch: [] for batch in batches}
    for _ in range(repeats):
        for batch in batches:  # in turn, so that a drift of the machine meets all alike
            results[batch].append(run(method, batch, source, {} if full else fewer))
    expected = results[0][0][2]
    plain = statistics.median(seconds for seconds, _, _ in results[0])
    for batch, measured in results.items():
        seconds = statistics.median(s for s, _, _ in measured)
        memory = statistics.median(m for _, m, _ in measured)
        difference = max(float((m - expected).abs().max() / expected.abs().max()) for _, _, m in measured)
        table.add_row(
            method,
            f"ours, perturbations_per_eval={batch}" if batch else "plain loop",
            f"{seconds:.2f}",
            f"{plain / seconds:.2f}",
            f"{memory:.0f}",
            f"{difference:.1e}",
        )
    return table


# stages in front of the cut, their stride, and how far, in pixels, an output cell sees beyond its own place
CUTS: dict[str, list[tuple[int, int, int]]] = {
    "xfr_compact128": [(2, 4, 3), (3, 4, 11)],
    "mobilefacenet_ms1m": [(3, 4, 5), (4, 4, 9), (5, 4, 13)],
}


def stages(network: nn.Module) -> list[nn.Module]:
    """The modules that a network calls one after the other, finer than its children."""
    found: list[nn.Module] = []
    for child in network.children():
        found.extend(child if isinstance(child, nn.Sequential) and len(child) > 3 else [child])
    return found


class PatchedPrefix:
    """The first layers, computed around a patch only, and pasted into what they give for the clean face."""

    def __init__(self, prefix: nn.Module, clean: Tensor, patch: int, stride: int, halo: int) -> None:
        self.prefix, self.stride, self.halo = prefix, stride, halo
        self.clean = prefix(clean)
        self.side = clean.shape[-1]
        # the changed cells reach a halo beyond the patch, and whole cells that see the crop's edge are wrong
        self.reach = halo - (-halo // stride) * stride
        self.crop = min(self.side, -(-(patch + 2 * self.reach) // stride) * stride + stride)

    def __call__(self, masked: Tensor, corners: list[tuple[int, int]]) -> Tensor:
        starts = [tuple(self._start(c) for c in corner) for corner in corners]
        crops = [
            image[:, top : top + self.crop, left : left + self.crop]
            for image, (top, left) in zip(masked, starts, strict=True)
        ]
        cells = self.prefix(torch.stack(crops))
        result = self.clean.expand(len(masked), -1, -1, -1).clone(memory_format=torch.contiguous_format)
        for i, start in enumerate(starts):
            (top, y0, y1), (left, x0, x1) = (self._valid(s) for s in start)
            result[i, :, top + y0 : top + y1, left + x0 : left + x1] = cells[i, :, y0:y1, x0:x1]
        return result

    def _start(self, corner: int) -> int:
        aligned = (corner - self.reach) // self.stride * self.stride
        return max(0, min(aligned, self.side - self.crop))

    def _valid(self, start: int) -> tuple[int, int, int]:
        """First cell of the crop in the feature map, and the range of its cells that see no edge of the crop."""
        margin, count = -(-self.halo // self.stride), self.crop // self.stride
        first = 0 if start == 0 else margin
        last = count if start + self.crop == self.side else count - margin
        return start // self.stride, first, last


def batches_of_patches(
    image: Tensor, patch: int, batch: int
) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    boxes = systematic_boxes(patch, 15, (image.shape[2], image.shape[3]))
    for start in range(0, min(len(boxes), 5 * batch) - batch + 1, batch):
        which = slice(start, start + batch)
        keep = 1 - boxes.draw(which, image)
        yield image * keep[:, None], [tuple(corner) for corner in boxes.corners[which, 0].tolist()]


def early_layers_table(source: str, repeats: int) -> Table:
    table = Table(
        "cut after", "share of the time before it", "patch", "all / only the changed part", "difference"
    )
    recognizer = load_recognizer(source)
    image = recognizer.preprocess(load_pair(recognizer)[0])
    parts = stages(recognizer.network)
    whole = fold_batchnorm(nn.Sequential(*parts).eval())
    for cut, stride, halo in CUTS[source]:
        prefix = fold_batchnorm(nn.Sequential(*parts[:cut]).eval())
        suffix = fold_batchnorm(nn.Sequential(*parts[cut:]).eval())
        for patch in (7, 14, 28):
            patched = PatchedPrefix(prefix, image, patch, stride, halo)
            work = list(batches_of_patches(image, patch, 8))
            forms: dict[str, Callable[[Tensor, list[tuple[int, int]]], Tensor]] = {
                "all": lambda masked, _: whole(masked),
                "part": lambda masked, corners, p=patched, s=suffix: s(p(masked, corners)),
                "prefix": lambda masked, _, p=prefix: p(masked),
            }
            times: dict[str, list[float]] = {name: [] for name in forms}
            for _ in range(repeats + 1):
                for name, form in forms.items():
                    start = time.perf_counter()
                    outputs = [form(*item) for item in work]
                    times[name].append(time.perf_counter() - start)
                    if name == "all":
                        expected = torch.cat(outputs)
                    elif name == "part":
                        difference = float((torch.cat(outputs) - expected).abs().max() / expected.abs().max())
            median = {name: statistics.median(found[1:]) for name, found in times.items()}
            table.add_row(
                f"stage {cut} (stride {stride})",
                f"{median['prefix'] / median['all']:.0%}",
                str(patch),
                f"{median['all'] / median['part']:.2f}",
                f"{difference:.1e}",
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizers", nargs="+", default=list(CUTS))
    parser.add_argument("--methods", nargs="*", default=list(FEWER), help="none: early layers only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="the default number of masks")
    arguments = parser.parse_args()
    console = Console(width=110)
    for source in arguments.recognizers:
        console.print(f"{source}, torch {torch.__version__}, {torch.get_num_threads()} threads, one pair")
        for method in arguments.methods:
            console.print(method_table(method, source, arguments.repeats, arguments.full))
        if source in CUTS and len(arguments.methods) in (0, len(FEWER)):
            with torch.no_grad():
                console.print(early_layers_table(source, arguments.repeats))


if __name__ == "__main__":
    main()
