"""Measure what share of a genuine pair's score each region brings; evidence by removal starts from there.

    python benchmarks/region_shares.py --pairs 60            # prints
    python benchmarks/region_shares.py --pairs 60 --write    # and writes the cards
    python benchmarks/region_shares.py --recognizers NAME --write

What stands for recognizers that nothing was measured for is written when all of those that ship were measured.
Genuine pairs of `pairsDevTest.txt`, of the half of the test people that nothing is reported on; usual areas are
those of training people. Needs `XFR_DATA`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr import LeaveOneOut, PairShapley, measure_shares
from xfr_plugin.base.files import write_text
from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.faces.folder import in_split
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import REGION_NAMES
from xfr_plugin.recognition import Recognizer, list_recognizers, load_recognizer
from xfr_plugin.recognition.folding import folded_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.faces_data import find_faces, read_faces

NAMES = ("xfr_compact128", "mobilefacenet_ms1m", "xfr_transformer")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument(
        "--shapley", type=int, default=12, help="pairs for Shapley values, which take a minute each"
    )
    parser.add_argument("--recognizers", nargs="+", default=NAMES, choices=list_recognizers())
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = {name: measured(name, options.pairs, options.shapley) for name in options.recognizers}
    print(json.dumps(found, indent=1))
    if not options.write:
        return
    for name, shares in found.items():
        write_card(name, shares)
    if set(NAMES) <= set(found):
        package = Path(str(resources.files("xfr_plugin.attr.intervention")))
        levels = {"area": usual_areas(), **mean_of([found[name] for name in NAMES])}
        write_text(package / "levels.json", json.dumps(levels, indent=1) + "\n")


def measured(name: str, pairs: int, shapley: int) -> dict[str, dict[str, float]]:
    """Shares by index and region, to four places."""
    recognizer = folded_recognizer(load_recognizer(name))
    shares = {
        "leave_one_out": measure_shares(LeaveOneOut(recognizer, level="none"), genuine(recognizer, pairs)),
        "shapley": measure_shares(
            PairShapley(recognizer, players="regions", donors=2, level="none"), genuine(recognizer, shapley)
        ),
    }
    return {
        index: {name: round(share, 4) for name, share in regions.items()} for index, regions in shares.items()
    }


def usual_areas(people: int = 1000) -> dict[str, float]:
    """Mean share of the picture that regions take, by name, over a photograph each of training people showing it."""
    root = data_root() / "faces"
    listed = sorted(find_faces(root / "lfw112", root / "peopleDevTrain.txt").items())[:people]
    faces = read_faces(root / "lfw112", {person: files[:1] for person, files in listed}, (112, 112))
    sums = {
        name: np.zeros(2) for name in REGION_NAMES if name != "hair"
    }  # whose values do not follow its area
    for start in range(0, len(faces), 50):
        for labels in find_regions(faces.batch(torch.arange(start, min(start + 50, len(faces))))):
            for name, area in labels.areas().items():
                if area and name in sums:
                    sums[name] += (area / labels.labels.size, 1)
    return {name: round(float(total / count), 4) for name, (total, count) in sums.items()}


def genuine(recognizer: Recognizer, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Genuine pairs of the half of the test people that choices are made on, no person twice."""
    root, seen = data_root() / "faces", set()
    for pair in read_pairs(root / "pairsDevTest.txt"):
        person = pair.probe.split("/")[0]
        if not pair.same or person in seen or not in_split(person, "dev"):
            continue
        seen.add(person)
        faces = read_faces(root / "lfw112", {person: [pair.probe, pair.reference]}, recognizer.input_size)
        images = faces.batch(torch.arange(2))
        yield images[:1], images[1:]
        if len(seen) == count:
            return


def mean_of(shares: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """What stands for recognizers that nothing was measured for."""
    return {
        index: {
            name: round(sum(own[index].get(name, 0.0) for own in shares) / len(shares), 4)
            for name in shares[0][index]
        }
        for index in shares[0]
    }


def write_card(name: str, shares: dict[str, dict[str, float]]) -> None:
    """Put the shares into the card of a recognizer that ships, or of a published one."""
    package = Path(str(resources.files("xfr_plugin")))
    card = package / "recognition" / "zoo_data" / f"{name}.json"
    if card.is_file():
        document = json.loads(card.read_text(encoding="utf-8"))
        write_text(card, json.dumps(document | {"region_shares": shares}, indent=2) + "\n")
        return
    path = package / "models" / f"{name}.safetensors"
    state, metadata = read_weights(path)
    metadata["recognizer"] |= {"region_shares": shares}
    write_weights(path, state, metadata)


if __name__ == "__main__":
    main()
