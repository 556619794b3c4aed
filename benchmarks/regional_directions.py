"""Do `reconstruction`'s regional directions add to what leaving one region out says?

    python benchmarks/regional_directions.py --pairs 40

Shapley values of eight regions, four real strangers being put in their place, are the truth: exact ones, or from so
many drawn coalitions for each stranger (`--samples`). They are predicted by least squares, on natural pairs of LFW's
training people, from

- *leave one out*: the losses with the composites that ship, and for each region a constant and a slope of the score;
- *with directions*: the same, and the evidence of the regional directions that the recognizer's decoder knows;
- *with directions by region*: the same, with a slope for each region;

and compared with the truth on pairs of the other half of these people, with *total*, *density* and *specific* as in
`donors.py`. Intervals are of 95 %, by bootstrap over pairs. Needs `XFR_DATA`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from donors import Known, by_face, correlation, interval, turned_apart
from numpy.typing import NDArray

from xfr_plugin.attr import LeaveOneOut, PairShapley, ReconstructionSaliency
from xfr_plugin.faces.folder import in_split
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.regions import COARSE_REGIONS, regions_of
from xfr_plugin.training.faces_data import find_faces, read_faces

STRANGERS, POOL, DRAWS = 4, 100, 1000
RIDGE = 1e-3

Values = NDArray[np.float64]


@dataclass
class Side:
    """A face of a pair: regions by area, exact values, losses, evidence of the directions, R each; and the score."""

    area: Values
    true: Values
    lost: Values
    directed: Values
    score: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--pairs", type=int, default=40, help="of each kind and half")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    chosen = {(kind, half): files_of(kind, half, options.pairs) for kind in KINDS for half in HALVES}
    used = {file.split("/")[0] for pairs in chosen.values() for pair in pairs for file in pair}
    pool = read(recognizer, strangers(used))
    report = {}
    for kind in KINDS:
        fit, held = (
            measured(recognizer, chosen[kind, half], list(pool.values()), options.samples) for half in HALVES
        )
        report[kind] = compared(fit, held)
        print(f"\n{options.recognizer}, {kind}")
        for name, figures in report[kind].items():
            print(f"{name:36}", "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


KINDS = {"genuine": True, "impostor": False}
HALVES = ("dev", "test")  # of the training people: fitted, held out


def compared(fit: list[Side], held: list[Side]) -> dict[str, dict[str, str]]:
    """Agreement of each prediction with the truth on held-out pairs, and how far directions raise it."""
    areas, true = (np.stack([getattr(side, name) for side in held]) for name in ("area", "true"))
    said = {"leave one out, as it is": np.stack([side.lost for side in held])}
    for name, terms in (
        ("leave one out", ("lost",)),
        ("with directions", ("lost", "directed")),
        ("with directions by region", ("lost", "directed", "directed by region")),
        ("directions alone", ("directed",)),
    ):
        said[name] = predicted(fit, held, terms)
    drawn = np.random.default_rng(0).integers(0, len(held) // 2, (DRAWS, len(held) // 2))
    scores = {name: scored(values, true, areas, drawn) for name, values in said.items()}
    table = {name: {key: interval(v[0], v[1:]) for key, v in found.items()} for name, found in scores.items()}
    for name in ("with directions", "with directions by region"):
        more = {key: scores[name][key] - scores["leave one out"][key] for key in scores[name]}
        table[f"{name}, more"] = {key: interval(v[0], v[1:]) for key, v in more.items()}
    return table


def scored(said: Values, true: Values, areas: Values, drawn: NDArray[np.int64]) -> dict[str, Values]:
    """Correlations, first of all pairs, then of each draw of pairs."""
    every = np.arange(len(said) // 2)
    rows = {"total": by_face(said, true), "density": by_face(said / areas, true / areas)}
    found = {}
    for name, values in rows.items():
        pairs = values.reshape(-1, 2).mean(axis=1)
        found[name] = np.array([pairs[some].mean() for some in (every, *drawn)])
    one, other = ((v - v.mean(axis=0)).reshape(len(every), -1) for v in (said, true))
    found["specific"] = np.array(
        [correlation(one[some].ravel(), other[some].ravel()) for some in (every, *drawn)]
    )
    return found


def predicted(fit: list[Side], held: list[Side], terms: tuple[str, ...]) -> Values:
    """Least squares on one half, applied to the other."""
    rows = np.concatenate([design(side, terms) for side in fit])
    wanted = np.concatenate([side.true for side in fit])
    scale = rows.std(axis=0) + 1e-9
    rows /= scale
    solved = np.linalg.solve(rows.T @ rows + RIDGE * len(rows) * np.eye(rows.shape[1]), rows.T @ wanted)
    return np.stack([design(side, terms) / scale @ solved for side in held])


def design(side: Side, terms: tuple[str, ...]) -> Values:
    """A row for each region."""
    own = np.eye(len(side.true))
    columns = [own, own * side.score]
    for term in terms:
        name = term.removesuffix(" by region")
        values = getattr(side, name)
        columns.append(np.diag(values) if term != name else values[:, None])
    return np.concatenate(columns, axis=1)


def measured(
    recognizer: Recognizer, pairs: list[tuple[str, str]], pool: list[Known], samples: int | None
) -> list[Side]:
    """Both faces of every pair, the probe's before the reference's."""
    faces = read(recognizer, sorted({file for pair in pairs for file in pair}))
    losing = LeaveOneOut(recognizer, players="coarse", level="none")
    directions = ReconstructionSaliency(recognizer, 0.0)
    sides = []
    for probe, reference in pairs:
        for own, other in ((faces[probe], faces[reference]), (faces[reference], faces[probe])):
            alike = sorted(pool, key=partial(_apart, own))[:STRANGERS]
            population = torch.stack([face.image for face in alike])
            exact = PairShapley(recognizer, population=population, samples=samples, level="none")
            true, lost = (
                game.regional(own.image[None], other.unit[None])[0][0].evidence.numpy()
                for game in (exact, losing)
            )
            directed = directions.evidence(own.unit[None], other.unit[None])[0].numpy()
            area = own.regions.masks.mean(axis=(1, 2))
            sides.append(Side(area, true, lost, directed.astype(np.float64), float(own.unit @ other.unit)))
    return sides


def _apart(own: Known, other: Known) -> float:
    return turned_apart(own.regions, other.regions)


def files_of(kind: str, half: str, count: int) -> list[tuple[str, str]]:
    """Pairs of training people of one half."""
    pairs = read_pairs(data_root() / "faces" / "pairsDevTrain.txt")
    files = [
        (pair.probe, pair.reference)
        for pair in pairs
        if pair.same is KINDS[kind]
        and all(in_split(f.split("/")[0], half) for f in (pair.probe, pair.reference))
    ]
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count]]


def strangers(used: set[str]) -> list[str]:
    """A photo of each of some other training people."""
    root = data_root() / "faces"
    people = find_faces(root / "lfw112", root / "peopleDevTrain.txt")
    files = [files[0] for person, files in people.items() if person not in used]
    return [files[i] for i in sorted(np.random.default_rng(1).permutation(len(files))[:POOL])]


def read(recognizer: Recognizer, files: list[str]) -> dict[str, Known]:
    """Faces by file."""
    found = read_faces(data_root() / "faces" / "lfw112", {"all": files}, recognizer.input_size)
    images = found.batch(torch.arange(len(found)))
    regions = regions_of(find_regions(images), COARSE_REGIONS)
    return dict(zip(files, map(Known, images, regions, recognizer.embed(images)), strict=True))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
