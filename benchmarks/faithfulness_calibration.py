"""Which maps does the check of faithfulness call supported, weak, contradicted? The table behind its rule.

    python benchmarks/faithfulness_calibration.py --recognizer xfr_compact128 --people test --out out/check.md

Needs the real faces (`XFR_DATA`). Held-out people and their two halves are those of `planted_evidence.py`: bounds
were chosen on `dev` and are reported on `test`. Planted pairs whose planting moves the score by more than .1 are
explained by maps that point at the planted region (`oracle`) and by their negatives; natural pairs of
`pairsDevTest.txt` by methods, by the negatives of one of them, and by maps that know nothing. Every answer is
appended to `--records`, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from planted_evidence import held_out_people
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest
from torch import Tensor

from xfr_plugin.attr import PairAttribution, get_method
from xfr_plugin.evaluation import MIN_SCORE_CHANGE, build_pairs, plan_plantings
from xfr_plugin.explanation.faithfulness import CONTRADICTED, SUPPORTED, check_faithfulness, verdict_of
from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import LfwPair, read_mesh_regions, read_pairs
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.planting import named_regions

Map = NDArray[np.float32]
Maps = tuple[Map, Map]
Inputs = tuple[Tensor, Tensor]
FLIPPED = "reconstruction"
SMOOTHNESS = 8 / 112


def main() -> None:
    options = parse_options()
    recognizer = load_recognizer(options.recognizer)
    options.records.parent.mkdir(parents=True, exist_ok=True)
    done = {(record["kind"], record["index"]) for record in read_records(options.records)}
    left = () if options.only_table else cases(options, recognizer, done)
    for kind, index, truth, inputs, maps in left:
        began = time.perf_counter()
        found = check_faithfulness(recognizer, inputs, maps, recognizer.threshold, seed=index)
        record = {"kind": kind, "index": index, "truth": truth, "statistic": found.statistic}
        record |= {"seconds": time.perf_counter() - began, "forwards": found.forwards}
        record["z"] = {f"{row.face} {row.claim}": row.z for row in found.rows}
        with options.records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    text = report(options, recognizer, read_records(options.records))
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--people", choices=("dev", "test"), default="test")
    parser.add_argument(
        "--planted", type=int, default=63, help="plantings a game, before the weak are left out"
    )
    parser.add_argument("--pairs", type=int, default=40, help="natural pairs, half of them genuine")
    parser.add_argument("--masks", type=int, default=100, help="of CorrRISE, a face")
    parser.add_argument("--methods", default="leave_one_out,amortised,reconstruction,xssab")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only-table", action="store_true", help="check nothing, tabulate the records")
    parser.add_argument("--records", type=Path, help="every answer, a JSON line each")
    parser.add_argument("--out", type=Path, help="Markdown table")
    options = parser.parse_args()
    if options.records is None:
        options.records = Path("out") / f"check_{Path(options.recognizer).stem}_{options.people}.jsonl"
    return options


def read_records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cases(
    options: argparse.Namespace, recognizer: Recognizer, done: set[tuple[str, int]]
) -> Iterator[tuple[str, int, str, Inputs, Maps]]:
    """What is left to be checked: kind of maps, number of the pair, its truth or game, images, maps."""
    both = zip_longest(planted_cases(options, recognizer), natural_cases(options, recognizer))
    for index, truth, inputs, makers in (case for pair in both for case in pair if case is not None):
        for kind, make in makers.items():
            if (kind, index) not in done:
                yield kind, index, truth, inputs, make()


def planted_cases(options: argparse.Namespace, recognizer: Recognizer) -> Iterator[Any]:
    """Maps that point at the planted region, in both faces, and their negatives."""
    root = data_root() / "faces"
    regions_of = read_mesh_regions(root, recognizer.input_size)
    people = held_out_people(root, options.people)
    plantings = plan_plantings(people, options.planted, seed=options.seed, regions_of=regions_of)
    pairs = build_pairs(recognizer, root / "lfw112", plantings, regions_of)
    for index, planting in enumerate(plantings):
        if abs(pairs.planted[index] - pairs.clean[index]) <= MIN_SCORE_CHANGE:
            continue
        sign = 1.0 if planting.game == "similar" else -1.0
        names = named_regions(planting.region)
        sides = (pairs.probe_regions[index], pairs.reference_regions[index])
        first, second = (sign * labels.mask(*names).astype(np.float32) for labels in sides)
        inputs = tuple(x[index : index + 1].float() / 255 for x in (pairs.probes, pairs.references))
        makers = {
            f"oracle, {planting.game}": partial(tuple, (first, second)),
            f"oracle negated, {planting.game}": partial(tuple, (-first, -second)),
        }
        yield index, planting.game, inputs, makers


def natural_cases(options: argparse.Namespace, recognizer: Recognizer) -> Iterator[Any]:
    """Maps of methods, a method's negatives, and maps that know nothing of the pair."""
    root = data_root() / "faces"
    methods = {
        name: get_method(name).build(
            recognizer, recognizer.threshold, **({"n_masks": options.masks} if name == "corrrise" else {})
        )
        for name in options.methods.split(",")
    }
    for index, pair in enumerate(natural_pairs(root, options)):
        images = [fit_aligned(load_photo(root / "lfw112" / f), recognizer.input_size) for f in pair[:2]]
        stacked = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / 255).float()
        inputs = (stacked[:1], stacked[1:])
        explained = {name: cache(partial(maps_of, method, inputs)) for name, method in methods.items()}
        score = recognizer.embed(stacked)
        match = float(score[0] @ score[1]) >= recognizer.threshold
        floors = blind_maps(recognizer.input_size, match, np.random.default_rng([options.seed, index]))
        makers = explained | {name: partial(tuple, maps) for name, maps in floors.items()}
        if FLIPPED in explained:
            makers[f"{FLIPPED} negated"] = partial(negated, explained[FLIPPED])
        yield index, "genuine" if pair.same else "impostor", inputs, makers


def natural_pairs(root: Path, options: argparse.Namespace) -> list[LfwPair]:
    """Genuine and impostor pairs in turn, of people of the half."""
    people = held_out_people(root, options.people)
    rng = np.random.default_rng(options.seed)
    listed = [
        pair
        for pair in read_pairs(root / "pairsDevTest.txt")
        if all(file.split("/")[0] in people for file in pair[:2])
    ]
    groups = [[pair for pair in listed if pair.same == same] for same in (True, False)]
    drawn = [[group[i] for i in rng.permutation(len(group))[: options.pairs // 2]] for group in groups]
    return [pair for both in zip(*drawn, strict=True) for pair in both]


def maps_of(method: PairAttribution, inputs: Inputs) -> Maps:
    first, second = (side[0].sum(dim=0).float().numpy() for side in method.attribute(inputs))
    return first, second


def negated(make: Callable[[], Maps]) -> Maps:
    first, second = make()
    return -first, -second


def blind_maps(size: tuple[int, int], match: bool, rng: np.random.Generator) -> dict[str, Maps]:
    """Smooth random maps, each face's own or one for both, and the centre prior, for or against by the decision."""
    noise = [
        gaussian_filter(rng.standard_normal(size), SMOOTHNESS * size[0]).astype(np.float32) for _ in range(3)
    ]
    places = [((np.arange(length) + 0.5) / length - 0.5) ** 2 / (2 * 0.25**2) for length in size]
    centre = np.exp(-np.add.outer(*places)).astype(np.float32) * (1 if match else -1)
    return {
        "random": (noise[0], noise[1]),
        "random, the same on both faces": (noise[2], noise[2]),
        "centre prior": (centre, centre),
    }


def report(options: argparse.Namespace, recognizer: Recognizer, records: list[dict[str, Any]]) -> str:
    """Markdown: what was run, and the shares of the three words for each kind of map."""
    seconds = np.median([record["seconds"] for record in records])
    lines = [
        f"`{recognizer.name}`, people of `{options.people}`, seed {options.seed}; supported from {SUPPORTED:g}, "
        f"contradicted to {CONTRADICTED:g}; median {seconds:.1f} s a check on this machine.",
        "",
        "| maps | n | statistic: median (5–95 %) | supported | weak | contradicted |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(record["kind"] for record in records):
        found = [record["statistic"] for record in records if record["kind"] == kind]
        words = [verdict_of(statistic) for statistic in found]
        known = [statistic for statistic in found if statistic is not None]
        low, middle, high = np.quantile(known, [0.05, 0.5, 0.95]) if known else (np.nan,) * 3
        shares = [
            share([word == verdict for word in words]) for verdict in ("supported", "weak", "contradicted")
        ]
        lines.append(
            f"| {kind} | {len(found)} | {middle:+.1f} ({low:+.1f} … {high:+.1f}) | {' | '.join(shares)} |"
        )
    return "\n".join(lines) + "\n"


def share(hits: list[bool]) -> str:
    """Percentage with Wilson's 95 % interval."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.0%} ({interval.low:.0%}–{interval.high:.0%})"


if __name__ == "__main__":
    main()
