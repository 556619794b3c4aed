"""Measure, and fit, how hair, ears and background around a face are told apart (`faces.surroundings`).

    python benchmarks/surroundings.py          # on the test people: docs/faces.md
    python benchmarks/surroundings.py --fit    # on the training people; writes xfr_plugin/models/surroundings.json

Needs `lfw112/` under `XFR_DATA/faces`. `surroundings_points.csv` beside this file holds random points around the
outlines of faces, labelled by eye on crops magnified four times: 60 people of `peopleDevTrain.txt` and 40 of
`peopleDevTest.txt`, one photo each, twelve points a photo: eight anywhere outside the face's outline, four beside it
between brows and mouth, where ears are. Hats count as hair, clothes and necks as background; skin is the face's own
that its outline left out. Points within a pixel or so of a boundary were labelled `unclear` and count nowhere.
Intervals are 95 %, from 2,000 bootstrap draws of people.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.faces import RegionMap, template_regions
from xfr_plugin.faces.outline_network import from_frame, to_frame
from xfr_plugin.faces.outlines import load_outline_finder
from xfr_plugin.faces.regions import mesh_regions
from xfr_plugin.faces.surroundings import (
    KINDS,
    Classifier,
    described,
    placed,
    reduced,
    reduced_pixels,
    with_surroundings,
)
from xfr_plugin.recognition.zoo import data_root

POINTS = Path(__file__).with_name("surroundings_points.csv")
MODEL = Path(__file__).parents[1] / "xfr_plugin" / "models" / "surroundings.json"
RIDGES = {"place": 3e-3, "whole": 1e-2}
DRAWS = 2000


@dataclass
class Points:
    """Labelled points of some photos."""

    photo: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    beside: NDArray[np.bool_]
    label: NDArray[np.int64]


def read_points(split: str) -> tuple[list[str], Points, int]:
    """Photos of a split, their points that are clear, and how many are not."""
    with POINTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    files = sorted({row["file"] for row in rows})
    clear = [row for row in rows if row["label"] in KINDS]
    columns = zip(
        *(
            (files.index(row["file"]), int(row["y"]), int(row["x"]), KINDS.index(row["label"]))
            for row in clear
        ),
        strict=True,
    )
    photo, row, column, label = (np.array(values) for values in columns)
    beside = np.array([row["drawn"] == "beside" for row in clear])
    return files, Points(photo, row, column, beside, label), len(rows) - len(clear)


def read_photo(file: str) -> NDArray[np.uint8]:
    """An aligned face, 112×112×3."""
    return np.array(Image.open(data_root() / "faces" / "lfw112" / file).convert("RGB"))


def outlined(image: NDArray[np.uint8]) -> RegionMap:
    """The face's own outlines, and by place alone what lies around."""
    outliner = load_outline_finder()
    frame = to_frame(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    points = from_frame(outliner.sketch(frame).points.double(), (112, 112))
    return mesh_regions(points[0].numpy(), outliner.features)


def regression(terms: NDArray[np.float64], labels: NDArray[np.int64], ridge: float) -> NDArray[np.float64]:
    """Weights of a multinomial logistic regression on standardised terms, given back for the terms themselves."""
    constant = int(np.flatnonzero(np.ptp(terms, axis=0) == 0)[0])
    mean, spread = terms.mean(axis=0), terms.std(axis=0)
    mean[constant], spread[constant] = 0, 1
    inputs, targets = torch.from_numpy((terms - mean) / spread), torch.from_numpy(labels)
    weights = torch.zeros(terms.shape[1], len(KINDS), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(inputs @ weights, targets)
        value = value + ridge / 2 * (weights.square().sum() - weights[constant].square().sum())
        value.backward()
        return value

    optimizer.step(loss)
    fitted = weights.detach().numpy() / spread[:, None]
    fitted[constant] -= mean @ fitted
    return fitted


def fit() -> None:
    """Fit the classifier to the training people and write it."""
    files, points, _ = read_points("train")
    faces = []
    for file in files:
        image = read_photo(file)
        small = reduced(outlined(image))
        faces.append((small, reduced_pixels(image, small.size), placed(small)))
    scale = faces[0][0].size[0] / 112
    at = [
        (int(p), int((r + 0.5) * scale), int((c + 0.5) * scale))
        for p, r, c in zip(points.photo, points.row, points.column, strict=True)
    ]
    by_place = np.array([faces[p][2][r, c] for p, r, c in at])
    first = Classifier(regression(by_place, points.label, RIDGES["place"]), np.zeros((0, 4)))
    terms = [described(*face, first) for face in faces]
    by_all = np.array([terms[p][r, c] for p, r, c in at])
    whole = regression(by_all, points.label, RIDGES["whole"])
    document = {"place": first.place.round(4).tolist(), "whole": whole.round(4).tolist()}
    MODEL.write_text(json.dumps(document) + "\n", encoding="utf-8")


def kinds_of(regions: RegionMap) -> NDArray[np.int64]:
    """Index into `KINDS` of each pixel; what belongs to the face is skin."""
    kinds = np.full(regions.size, KINDS.index("skin"))
    for kind, names in (
        ("background", ("background",)),
        ("hair", ("hair",)),
        ("ear", ("right_ear", "left_ear")),
    ):
        kinds[regions.mask(*names)] = KINDS.index(kind)
    return kinds


def interval(right: NDArray[np.bool_], photo: NDArray[np.int64]) -> list[float]:
    """Share that is right and its interval over people, in percent."""
    photos = np.unique(photo)
    sums = np.array([(right[photo == p].sum(), (photo == p).sum()) for p in photos])
    draws = sums[np.random.default_rng(0).integers(len(photos), size=(DRAWS, len(photos)))].sum(axis=1)
    ends = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
    return [round(100 * float(v), 1) for v in (right.mean(), *ends)]


def figures(found: NDArray[np.int64], points: Points) -> dict[str, object]:
    """Accuracy, recall and precision with intervals, and the table of confusions."""
    right, label, photo = found == points.label, points.label, points.photo
    anywhere = ~points.beside
    head = np.isin(label, (0, 1)) & anywhere
    table = np.zeros((4, 4), dtype=int)
    np.add.at(table, (label, found), 1)
    report: dict[str, object] = {
        "right anywhere, %": interval(right[anywhere], photo[anywhere]),
        "right beside the face, %": interval(right[points.beside], photo[points.beside]),
        "hair against background, anywhere, %": interval(right[head], photo[head]),
        "labelled × found": {
            name: dict(zip(KINDS, map(int, row), strict=True)) for name, row in zip(KINDS, table, strict=True)
        },
    }
    for k, name in enumerate(KINDS):
        report[f"found of {name}, %"] = interval(right[label == k], photo[label == k])
        if (found == k).any():
            report[f"right where {name} is found, %"] = interval(right[found == k], photo[found == k])
    return report


def measure() -> dict[str, object]:
    """Figures on the test people: as shipped, with the template's outlines, and by place alone."""
    files, points, unclear = read_points("test")
    ways: dict[str, list[NDArray[np.int64]]] = {
        name: [] for name in ("own outlines", "template", "place alone")
    }
    taken = []
    for file in files:
        image = read_photo(file)
        own = outlined(image)
        began = time.process_time()
        ways["own outlines"].append(kinds_of(with_surroundings(own, image)))
        taken.append(time.process_time() - began)
        ways["template"].append(kinds_of(with_surroundings(template_regions(), image)))
        ways["place alone"].append(kinds_of(own))
    report: dict[str, object] = {
        "people": len(files),
        "points": len(points.label),
        "unclear": unclear,
        "labels": dict(zip(KINDS, np.bincount(points.label, minlength=4).tolist(), strict=True)),
        "CPU ms a face": round(1e3 * float(np.median(taken)), 1),
    }
    for name, maps in ways.items():
        at = np.array(
            [maps[p][r, c] for p, r, c in zip(points.photo, points.row, points.column, strict=True)]
        )
        report[name] = figures(at, points)
    return report


def main() -> None:
    """Fit or print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit to the training people instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.fit:
        fit()
    else:
        print(json.dumps(measure(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
