"""Which maps does the check of faithfulness call supported, weak, contradicted? The table behind its rule.

    python benchmarks/faithfulness_calibration.py --recognizer xfr_compact128 --people test --out out/check.md

Needs the real faces (`XFR_DATA`). Held-out people and their two halves are those of `people.py`: the rule
and its bounds were chosen on `dev` and are reported on `test`. Planted pairs whose planting moves the score by more
than .1 in the direction of its game are explained by maps that point at the planted region (`oracle`), genuine pairs
with something drawn over the probe by maps that mark what is covered as against; natural pairs of `pairsDevTest.txt`
by methods, and by maps that know nothing. Negatives of all of these have the same numbers with the other sign. What
the score does is measured once a pair. Answers are appended to `--records`, so that a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from people import held_out_people
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest
from torch import Tensor

from xfr_plugin.attr import get_method
from xfr_plugin.evaluation import MIN_SCORE_CHANGE, PairEntry, PlantedPair, plan_plantings
from xfr_plugin.evaluation.occluders.frame import landmarks_of
from xfr_plugin.evaluation.occluders.kinds import OCCLUDERS, occlude
from xfr_plugin.evaluation.pairs import load_pair
from xfr_plugin.explanation.faithfulness import CONTRADICTED, SUPPORTED, PairEffects, pair_effects
from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.lfw import LfwPair, read_mesh_regions, read_pairs
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.planting import effect_of, named_regions

Map = NDArray[np.float32]
Maps = tuple[Map, Map]
Case = tuple[str, Tensor, dict[str, list[Maps]]]
"""Name of a pair, its images 2×3×H×W, and maps by kind."""

SMOOTHNESS = 8 / 112
NOISE = 5
BOUNDS = (1.0, 1.5, 2.0, 2.5, 3.0)


def main() -> None:
    options = parse_options()
    recognizer = load_recognizer(options.recognizer)
    options.records.parent.mkdir(parents=True, exist_ok=True)
    done = {record["pair"] for record in read_records(options.records)}
    for name, images, kinds in () if options.only_table else cases(options, recognizer, done):
        began = time.process_time()
        effects = pair_effects(recognizer, (images[:1], images[1:]), regions=find_regions(images))
        seconds = time.process_time() - began
        found = {kind: [judged(effects, pair) for pair in maps] for kind, maps in kinds.items()}
        if name.startswith("natural"):
            found |= {
                f"{kind}, embedding": [judged(alone(effects), pair) for pair in maps]
                for kind, maps in kinds.items()
            }
        record = {"pair": name, "seconds": seconds, "forwards": effects.forwards, "z": found}
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
        "--planted", type=int, default=84, help="plantings a game, before the weak are left out"
    )
    parser.add_argument("--covered", type=int, default=48, help="covered faces, before the weak are left out")
    parser.add_argument("--pairs", type=int, default=40, help="natural pairs, half of them genuine")
    parser.add_argument("--methods", default="leave_one_out,reconstruction,xssab,lrp")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only-table", action="store_true", help="check nothing, tabulate the records")
    parser.add_argument("--records", type=Path, help="every answer, a JSON line each")
    parser.add_argument("--out", type=Path, help="Markdown tables")
    options = parser.parse_args()
    if options.records is None:
        options.records = Path("out") / f"check_{Path(options.recognizer).stem}_{options.people}.jsonl"
    return options


def read_records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judged(effects: PairEffects, maps: Maps) -> float:
    """The statistic; 0 where there is nothing to test."""
    return effects.judge(maps, 0.0).statistic or 0.0


def alone(effects: PairEffects) -> PairEffects:
    """What is measured of the probe against an embedding."""
    return replace(
        effects,
        regions=effects.regions[:1],
        sets=effects.sets[:1],
        replaced=effects.replaced[:1],
        exchanged=(),
    )


def cases(options: argparse.Namespace, recognizer: Recognizer, done: set[str]) -> Iterator[Case]:
    """What is left to be checked."""
    root = data_root() / "faces"
    for make in (natural_cases, planted_cases, covered_cases):
        yield from make(options, recognizer, root, done)


def planted_cases(
    options: argparse.Namespace, recognizer: Recognizer, root: Path, done: set[str]
) -> Iterator[Case]:
    """Maps that point at the planted region, in both faces."""
    folder = FaceFolder(root, recognizer.input_size)
    people = held_out_people(root, options.people)
    plantings = plan_plantings(people, options.planted, seed=options.seed, regions_of=folder.regions)
    for index, planting in enumerate(plantings):
        if f"planted {index}" in done:
            continue
        pair = load_pair(folder, PairEntry.of(planting))
        assert isinstance(pair, PlantedPair)
        before, after, partner = recognizer.embed(
            torch.stack([pair.before, pair.probe, pair.reference]).float() / 255
        )
        if effect_of(planting.game, float((after - before) @ partner)) <= MIN_SCORE_CHANGE:
            continue
        sign = 1.0 if planting.game == "similar" else -1.0
        names = named_regions(planting.region)
        sides = (pair.probe_regions, pair.reference_regions)
        first, second = (sign * labels.mask(*names).astype(np.float32) for labels in sides)
        images = torch.stack([pair.probe, pair.reference]).float() / 255
        yield f"planted {index}", images, {f"oracle, {planting.game}": [(first, second)]}


def covered_cases(
    options: argparse.Namespace, recognizer: Recognizer, root: Path, done: set[str]
) -> Iterator[Case]:
    """Genuine pairs with something drawn over the probe, which lowers the score by more than .1."""
    regions_of = read_mesh_regions(root, recognizer.input_size)
    genuine = [pair for pair in natural_pairs(root, options) if pair.same]
    for index in range(options.covered):
        pair, kind = genuine[index % len(genuine)], list(OCCLUDERS)[index % len(OCCLUDERS)]
        images = read_images(root, pair, recognizer.input_size)
        rng = np.random.default_rng([options.seed, index])
        face = images[0].permute(1, 2, 0).numpy()
        drawn = occlude(face, landmarks_of(regions_of(pair.probe)), kind, rng)
        changed = torch.stack([torch.from_numpy(drawn.image).permute(2, 0, 1), images[1]])
        before, after = (float(units[0] @ units[1]) for units in map(recognizer.embed, (images, changed)))
        if before - after > MIN_SCORE_CHANGE and f"covered {index}" not in done:
            covered = -drawn.covered.astype(np.float32)
            yield f"covered {index}", changed, {"covered area against": [(covered, covered)]}


def natural_cases(
    options: argparse.Namespace, recognizer: Recognizer, root: Path, done: set[str]
) -> Iterator[Case]:
    """Maps of methods, and maps that know nothing of the pair."""
    methods = {
        name: get_method(name).build(recognizer, recognizer.threshold) for name in options.methods.split(",")
    }
    for index, pair in enumerate(natural_pairs(root, options)):
        if f"natural {index}" in done:
            continue
        images = read_images(root, pair, recognizer.input_size)
        units = recognizer.embed(images)
        match = float(units[0] @ units[1]) >= recognizer.threshold
        kinds: dict[str, list[Maps]] = {}
        for name, method in methods.items():
            first, second = method.attribute((images[:1], images[1:]))
            kinds[name] = [(summed(first), summed(second))]
        rng = np.random.default_rng([options.seed, index])
        yield f"natural {index}", images, kinds | blind_maps(recognizer.input_size, match, rng)


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


def read_images(root: Path, pair: LfwPair, size: tuple[int, int]) -> Tensor:
    photos = [fit_aligned(load_photo(root / "lfw112" / file), size) for file in pair[:2]]
    return torch.from_numpy(np.stack(photos).transpose(0, 3, 1, 2) / 255).float()


def summed(maps: Tensor) -> Map:
    values: Map = maps[0].detach().sum(dim=0).float().numpy()
    return values


def blind_maps(size: tuple[int, int], match: bool, rng: np.random.Generator) -> dict[str, list[Maps]]:
    """Smooth random maps, each face's own or one for both, and the centre prior, for or against by the decision."""

    def noise() -> Map:
        return gaussian_filter(rng.standard_normal(size), SMOOTHNESS * size[0]).astype(np.float32)

    places = [((np.arange(length) + 0.5) / length - 0.5) ** 2 / (2 * 0.25**2) for length in size]
    centre = np.exp(-np.add.outer(*places)).astype(np.float32) * (1 if match else -1)
    return {
        "random": [(noise(), noise()) for _ in range(NOISE)],
        "random, the same on both faces": [(one, one) for one in (noise() for _ in range(NOISE))],
        "centre prior": [(centre, centre)],
    }


def report(options: argparse.Namespace, recognizer: Recognizer, records: list[dict[str, Any]]) -> str:
    """Markdown: what was run, the shares of the three words for each kind of map, and the operating curve."""
    found: dict[str, list[float]] = {}
    for record in records:
        for kind, values in record["z"].items():
            found.setdefault(kind, []).extend(values)
    seconds, forwards = (np.median([record[key] for record in records]) for key in ("seconds", "forwards"))
    lines = [
        f"`{recognizer.name}`, people of `{options.people}`, seed {options.seed}; supported from {SUPPORTED:g}, "
        f"contradicted to {CONTRADICTED:g}; median {forwards:.0f} passes, {seconds:.2f} s of processor time a pair.",
        "",
        "| maps | n | z: median (5–95 %) | supported | weak | contradicted |",
        "|---|---|---|---|---|---|",
    ]
    for kind, values in found.items():
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        z = np.array(values)
        words = [z >= SUPPORTED, (z > CONTRADICTED) & (z < SUPPORTED), z <= CONTRADICTED]
        shares = " | ".join(share(hits.tolist()) for hits in words)
        lines.append(f"| {kind} | {len(z)} | {middle:+.1f} ({low:+.1f} … {high:+.1f}) | {shares} |")
    lines += [
        "",
        "| from z and above / to −z and below | " + " | ".join(f"{bound:g}" for bound in BOUNDS) + " |",
        "|---|" + "---|" * len(BOUNDS),
    ]
    for kind, values in found.items():
        cells = [(np.mean(np.array(values) >= b), np.mean(np.array(values) <= -b)) for b in BOUNDS]
        lines.append(f"| {kind} | " + " | ".join(f"{up:.0%} / {down:.0%}" for up, down in cells) + " |")
    return "\n".join(lines) + "\n"


def share(hits: list[bool]) -> str:
    """Percentage with Wilson's 95 % interval."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.0%} ({interval.low:.0%}–{interval.high:.0%})"


if __name__ == "__main__":
    main()
