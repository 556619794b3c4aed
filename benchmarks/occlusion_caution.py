"""How uncovered faces look: fits the model behind the caution of covered eyes and mouths, and measures the caution.

    python benchmarks/occlusion_caution.py --data ../shared/data fit --out xfr_plugin/models/appearance.safetensors
    python benchmarks/occlusion_caution.py --data ../shared/data measure

Fitted on people of `peopleDevTrain.txt` whose names fall into one half, limits from the other half; no occluder is
drawn. Measured on people of `peopleDevTest.txt`: how many of their photographs are flagged as they are, and with each
kind of occluder that `xfr evaluate` draws; by the parts that it hides.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest

from xfr_plugin.errors import XfrError
from xfr_plugin.evaluation.occluders.kinds import OCCLUDERS, occlude
from xfr_plugin.explanation.occlusion import covered_parts
from xfr_plugin.explanation.quality import SMOOTHEST
from xfr_plugin.explanation.quality import measure as measure_quality
from xfr_plugin.faces import load_photo, prepare_face
from xfr_plugin.faces.alignment import template
from xfr_plugin.faces.folder import in_split
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.training.appearance import fit_appearance

Face = NDArray[np.uint8]
HIDDEN = ("right_eye", "left_eye", "mouth")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("fit", "measure"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/appearance.safetensors"))
    parser.add_argument("--photos", type=int, default=3, help="of each training person, at most")
    parser.add_argument("--drawn", type=int, default=300, help="faces that each occluder is drawn on")
    options = parser.parse_args()
    faces = options.data / "faces"
    if options.task == "fit":
        people = read_people(faces / "peopleDevTrain.txt")
        halves = [[p for p in people if in_split(p, split)] for split in ("dev", "test")]
        fitted, others = (list(photos(faces / "lfw112", half, options.photos)) for half in halves)
        fit_appearance(fitted, others).save(options.out)
        print(f"{len(fitted)} faces fitted, {len(others)} for the limits: {options.out}")
    else:
        measure(faces, options.drawn)


def photos(folder: Path, people: list[str], count: int) -> Iterator[Face]:
    for person in people:
        for file in sorted((folder / person).glob("*.jpg"))[:count]:
            yield load_photo(file)


def measure(faces: Path, count: int) -> None:
    people = list(read_people(faces / "peopleDevTest.txt"))
    natural = list(photos(faces / "lfw112", people, 1))
    print("| what | n | eyes or mouth flagged (95 %) | eyes | mouth |\n|---|---|---|---|---|")
    row("LFW's aligned crops, as they are", natural)
    row("LFW's photographs, aligned by us", list(aligned(faces / "lfw250", people)))
    for sigma in (1, 2):
        row(
            f"crops blurred, σ {sigma} pixels",
            [gaussian_filter(x, (sigma, sigma, 0)) for x in natural[:count]],
        )
    row("crops at half of the light", [x // 2 for x in natural[:count]])
    chosen = natural[:: max(1, len(natural) // count)][:count]
    for kind in OCCLUDERS:
        drawn = [
            occlude(face / 255, template(), kind, np.random.default_rng([number, len(kind)]))
            for number, face in enumerate(chosen)
        ]
        masks = [template_regions().mask(name) for name in HIDDEN]
        hides = [any(one.covered[mask].mean() > 0.5 for mask in masks) for one in drawn]
        images = [np.rint(one.image * 255).astype(np.uint8) for one in drawn]
        row(f"{kind}; hides half of an eye or the mouth in {np.mean(hides):.0%}", images)


def aligned(folder: Path, people: list[str]) -> Iterator[Face]:
    for file in sorted(file for person in people for file in (folder / person).glob("*.jpg")):
        with suppress(XfrError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield prepare_face(file).image


def row(name: str, faces: list[Face]) -> None:
    found = [covered_parts(face) if measure_quality(face)[2] >= SMOOTHEST else () for face in faces]
    hits = sum(bool(parts) for parts in found)
    interval = binomtest(hits, len(found)).proportion_ci(method="wilson")
    parts = " | ".join(f"{np.mean([part in one for one in found]):.1%}" for part in ("eyes", "mouth"))
    rate = f"{hits / len(found):.1%} ({interval.low:.1%}–{interval.high:.1%})"
    print(f"| {name} | {len(found)} | {rate} | {parts} |", flush=True)


if __name__ == "__main__":
    main()
