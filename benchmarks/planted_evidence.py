"""Which methods point at planted evidence? Any registered methods, beside chance, in one run.

    python benchmarks/planted_evidence.py --methods reconstruction,reconstruction/paper,xssab --out out/planted.md

A name may be followed by a variant of the method. Needs the real faces (`XFR_DATA`). Pairs are planted among the
people of `peopleDevTest.txt`, on whom nothing was trained. By a hash of their names the people fall into two halves:
`dev`, on which forms and constants were chosen, and `test`, on which nothing was. Maps are blurred (σ = 5 pixels
of 112) and scored inside the face against the mesh region of the planted face.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr import get_method
from xfr_plugin.evaluation import (
    MIN_SCORE_CHANGE,
    PlantedPairs,
    PlantedScore,
    PlantedSummary,
    build_pairs,
    centre_prior,
    plan_plantings,
    random_maps,
    score_maps,
    summarise,
)
from xfr_plugin.faces.folder import Split, in_split
from xfr_plugin.faces.lfw import image_path, read_mesh_regions, read_people
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.planting import effect_of

Maps = NDArray[np.float32]
Form = Callable[[PlantedPairs], Maps]


def main() -> None:
    options = parse_options()
    recognizer = load_recognizer(options.recognizer)
    pairs, controls = plant(recognizer, options)
    rows: list[PlantedScore] = []
    control_rows: list[PlantedScore] = []
    forms: dict[str, Form] = {"chance: random": random_maps, "chance: centre prior": centre_prior}
    for name in options.methods.split(","):
        method, _, variant = name.partition("/")
        given = {"variant": variant} if variant else {}
        built = get_method(method).build(recognizer, recognizer.threshold, **given)
        forms[name] = attributed(recognizer, built.attribute)
    for name, form in forms.items():
        began = time.perf_counter()
        rows += score_maps(name, form(pairs), pairs)
        control_rows += score_maps(name, form(controls), controls)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    text = report(options, recognizer, pairs, rows, control_rows)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default="reconstruction,reconstruction/paper,xssab", help="with commas")
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--people", choices=("dev", "test"), default="test")
    parser.add_argument("--count", type=int, default=350, help="plantings a game")
    parser.add_argument("--controls", type=int, default=105, help="control plantings a game")
    parser.add_argument("--blending", default="feather")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, help="Markdown table")
    return parser.parse_args()


def plant(recognizer: Recognizer, options: argparse.Namespace) -> tuple[PlantedPairs, PlantedPairs]:
    """Planted pairs, and controls: same seam, no evidence."""
    root = data_root() / "faces"
    people = held_out_people(root, options.people)
    regions_of = read_mesh_regions(root, recognizer.input_size)
    sets = []
    for control, count in ((False, options.count), (True, options.controls)):
        plantings = plan_plantings(
            people,
            count,
            seed=options.seed,
            control=control,
            blending=options.blending,
            regions_of=regions_of,
        )
        sets.append(build_pairs(recognizer, root / "lfw112", plantings, regions_of))
    return sets[0], sets[1]


def held_out_people(root: Path, split: Split) -> dict[str, list[str]]:
    """Aligned faces of each person of a split, `dev` or `test`, of those on whom nothing was trained."""
    return {
        name: [f for i in range(count) if (root / "lfw112" / (f := image_path(name, i + 1))).is_file()]
        for name, count in read_people(root / "peopleDevTest.txt").items()
        if in_split(name, split)
    }


def attributed(recognizer: Recognizer, attribute: Callable[..., Tensor]) -> Form:
    """Probe maps of a pair attribution, against the references' embeddings."""

    def form(pairs: PlantedPairs) -> Maps:
        maps = []
        for chunk in pairs.chunks(8):
            probes, references = pairs.probes[chunk].float() / 255, pairs.references[chunk].float() / 255
            partners = recognizer.embed(references)
            maps.append(attribute(probes, additional_forward_args=partners).detach().sum(dim=1))
        return torch.cat(maps).numpy()

    return form


def report(
    options: argparse.Namespace,
    recognizer: Recognizer,
    pairs: PlantedPairs,
    rows: list[PlantedScore],
    controls: list[PlantedScore],
) -> str:
    """Markdown: what was run, and the table."""
    changes = (pairs.planted - pairs.clean).tolist()
    moved = [
        effect_of(p.game, change) > MIN_SCORE_CHANGE
        for p, change in zip(pairs.plantings, changes, strict=True)
    ]
    settings = {"recognizer": recognizer.name, "people": options.people, "blending": options.blending}
    lines = [
        f"{json.dumps(settings)}: {options.count} plantings a game, seed {options.seed};"
        f" {np.mean(moved):.0%} move the score by more than {MIN_SCORE_CHANGE}; {options.controls} controls a game.",
        "",
        "| form | dissimilar: AUC | top-1 | moved > .1: AUC | top-1 | similar: AUC | top-1 | moved > .1: AUC | top-1 "
        "| controls: AUC, dissimilar / similar |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    everything, strong = summarise(rows), summarise(rows, lambda row: row.moved > MIN_SCORE_CHANGE)
    seams = summarise(controls)
    for name in dict.fromkeys(row.method for row in rows):
        cells = []
        for game in ("dissimilar", "similar"):
            for table in (everything, strong):
                found = pick(table, name, game)
                cells += [interval(found.auc), interval(found.top1)]
        seam = " / ".join(f"{pick(seams, name, game).auc.mean:.2f}" for game in ("dissimilar", "similar"))
        lines.append(f"| {name} | {' | '.join(cells)} | {seam} |")
    return "\n".join(lines) + "\n"


def pick(table: list[PlantedSummary], method: str, game: str) -> PlantedSummary:
    return next(row for row in table if (row.method, row.game) == (method, game))


def interval(value: object) -> str:
    return f"{value.mean:.3f} ({value.low:.3f}–{value.high:.3f})"


if __name__ == "__main__":
    main()
