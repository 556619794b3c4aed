"""Which faces may stand for strangers: how well leaving one region out agrees with what real strangers say.

    python benchmarks/donors.py --split dev --pairs 40 --recognizer xfr_compact128

For natural pairs of LFW's test people (`pairsDevTest.txt`) every named region of both faces is replaced by that of 7
real strangers who hold their heads alike, and the loss of the score is the truth; 7 other strangers give the ceiling.
Correlations over the regions of a face, averaged over faces: of the losses (*total*), divided by area (*density*),
after an even map of the same sum is taken off (*excess*); and pooled over faces, after the mean over faces is
taken off region by region (*specific*: what is said of this pair). 95 % bootstrap intervals over pairs.
Needs `XFR_DATA`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.intervention.removal import Operator, Removal
from xfr_plugin.faces.folder import in_split
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.donors import COMPOSITES, composite_faces, synthetic_faces
from xfr_plugin.swaps.regions import FINE_REGIONS, FaceRegions, regions_of, turn_of
from xfr_plugin.training.faces_data import find_faces, read_faces

STRANGERS, POOL, ANYHOW = 7, 400, 4
DRAWS = 1000


@dataclass
class Known:
    """A face, its regions, and its embedding."""

    image: Tensor
    regions: FaceRegions
    unit: Tensor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--split", default="dev", choices=("dev", "test", "all"))
    parser.add_argument("--pairs", type=int, default=40, help="of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    recognizer = fast_recognizer(load_recognizer(options.recognizer))
    report = {
        kind: compared(recognizer, pairs)
        for kind, pairs in chosen_pairs(options.split, options.pairs).items()
    }
    for kind, table in report.items():
        print(f"\n{options.recognizer}, {kind}")
        for name, figures in table.items():
            print(f"{name:34}", "  ".join(f"{key} {value}" for key, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def compared(recognizer: Recognizer, pairs: list[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Agreement of every kind of donor with real strangers."""
    faces = known_faces(recognizer, sorted({file for pair in pairs for file in pair}))
    pool = strangers(recognizer, {file.split("/")[0] for pair in pairs for file in pair})
    losses: dict[str, list[NDArray[np.float64]]] = {}
    areas: list[NDArray[np.float64]] = []
    for probe, reference in pairs:
        for own, other in ((faces[probe], faces[reference]), (faces[reference], faces[probe])):
            areas.append(np.where(own.regions.present, own.regions.masks.sum(axis=(1, 2)), np.nan))
            for name, changed in changed_units(recognizer, own, pool).items():
                lost = (own.unit @ other.unit - changed @ other.unit).numpy()
                losses.setdefault(name, []).append(np.where(own.regions.present, lost, np.nan))
    truth = losses.pop("truth")
    constant = np.nanmean(truth, axis=0)
    losses["constant answer"] = [constant] * len(truth)
    losses["area"] = areas
    return {name: agreement(found, truth, areas) for name, found in losses.items()}


def changed_units(recognizer: Recognizer, own: Known, pool: list[Known]) -> dict[str, Tensor]:
    """Mean embeddings R×D of a face without each region, by what stands there instead."""
    size = recognizer.input_size
    ranked = sorted(pool, key=lambda face: turned_apart(face.regions, own.regions))
    posed, others = ranked[: 2 * STRANGERS], ranked[2 * STRANGERS :]
    evenly = others[len(others) // (2 * ANYHOW) :: len(others) // ANYHOW][:ANYHOW]
    alike, anyhow = (torch.stack([face.image for face in some]) for some in (posed, evenly))
    truth, other = (
        without_regions(recognizer, own, "population", some) for some in (alike[::2], alike[1::2])
    )
    composites = without_regions(recognizer, own, "population", composite_faces(COMPOSITES, size))
    by_pose = sorted(
        range(COMPOSITES), key=lambda k: turned_apart(composite_regions(COMPOSITES, size)[k], own.regions)
    )
    found = {
        "truth": truth,
        "7 other real strangers": other,
        "4 other real strangers": other[:4],
        "4 real strangers, however posed": without_regions(recognizer, own, "population", anyhow),
        **{f"{k} composites": composites[:k] for k in (1, 2, 3, 4, 6, 8, 12)},
        "4 of 12 composites, by pose": composites[by_pose[:4]],
        "4 decoded faces": without_regions(recognizer, own, "population", synthetic_faces(4, size)),
        "mean face": without_regions(recognizer, own, "mean", 1),
        "blur": without_regions(recognizer, own, "blur", 1),
        "black": without_regions(recognizer, own, "black", 1),
    }
    return {name: units.mean(dim=0) for name, units in found.items()}


def without_regions(
    recognizer: Recognizer, own: Known, operator: Operator, population: Tensor | int
) -> Tensor:
    """Embeddings K×R×D of a face without each region; without one that it does not show, its own."""
    removal = Removal(operator, population, "regions", own.image[None])
    images = (own.image + removal.changes(own.image, own.regions, None, False)).clamp(0, 1)
    units = own.unit.repeat(len(images), len(own.regions.names), 1)
    units[:, own.regions.present] = recognizer.embed(images.flatten(0, 1), 16).unflatten(0, images.shape[:2])
    return units


def turned_apart(first: FaceRegions, second: FaceRegions) -> float:
    """How differently two heads are turned."""
    return abs(turn_of(first.labels) - turn_of(second.labels))


@cache
def composite_regions(count: int, size: tuple[int, int]) -> list[FaceRegions]:
    """Regions of the composite faces."""
    return regions_of(find_regions(composite_faces(count, size)), FINE_REGIONS)


def agreement(
    found: list[NDArray[np.float64]], truth: list[NDArray[np.float64]], areas: list[NDArray[np.float64]]
) -> dict[str, str]:
    """Correlations, each with its interval."""
    own, true, area = np.stack(found), np.stack(truth), np.stack(areas)
    share = area / np.nansum(area, axis=1, keepdims=True)
    even = [values - np.nansum(values, axis=1, keepdims=True) * share for values in (own, true)]
    rows = {
        "total": by_face(own, true),
        "density": by_face(own / area, true / area),
        "excess": by_face(*even),
    }
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(own) // 2, (DRAWS, len(own) // 2))
    figures = {}
    for name, values in rows.items():
        pairs = values.reshape(-1, 2).mean(axis=1)
        figures[name] = interval(np.nanmean(pairs), np.nanmean(pairs[drawn], axis=1))
    centred = [(values - np.nanmean(values, axis=0)).reshape(len(own) // 2, -1) for values in (own, true)]
    pooled = [correlation(centred[0][some].ravel(), centred[1][some].ravel()) for some in drawn]
    figures["specific"] = interval(correlation(centred[0].ravel(), centred[1].ravel()), np.array(pooled))
    return figures


def by_face(own: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of each row."""
    return np.array([correlation(*rows) for rows in zip(own, true, strict=True)])


def correlation(own: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Pearson's r of what both have; 0 if one is constant."""
    both = ~(np.isnan(own) | np.isnan(true))
    a, b = (values[both] - values[both].mean() for values in (own, true))
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length > 1e-12 else 0.0


def interval(value: float, draws: NDArray[np.float64]) -> str:
    """A figure and its 95 % interval."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{value:.2f} ({low:.2f}–{high:.2f})"


def chosen_pairs(split: str, count: int) -> dict[str, list[tuple[str, str]]]:
    """Pairs of people of a split of the test people, by kind."""
    entries = read_pairs(data_root() / "faces" / "pairsDevTest.txt")
    kept = [e for e in entries if all(in_split(f.split("/")[0], split) for f in (e.probe, e.reference))]
    random = np.random.default_rng(0)
    result = {}
    for kind, same in (("genuine", True), ("impostor", False)):
        files = [(e.probe, e.reference) for e in kept if e.same is same]
        result[kind] = [files[i] for i in random.permutation(len(files))[:count]]
    return result


def known_faces(recognizer: Recognizer, files: list[str]) -> dict[str, Known]:
    """Faces by file."""
    folder = data_root() / "faces" / "lfw112"
    faces = read_faces(folder, {"all": files}, recognizer.input_size)
    images = faces.batch(torch.arange(len(faces)))
    regions = regions_of(find_regions(images), FINE_REGIONS)
    units = recognizer.embed(images)
    return dict(zip(files, map(Known, images, regions, units), strict=True))


def strangers(recognizer: Recognizer, people: set[str]) -> list[Known]:
    """Test people who are in none of the pairs."""
    root = data_root() / "faces"
    files = [files[0] for files in find_faces(root / "lfw112", root / "peopleDevTest.txt").values()]
    others = [file for file in files if file.split("/")[0] not in people]
    chosen = np.random.default_rng(1).permutation(len(others))[:POOL]
    return list(known_faces(recognizer, [others[i] for i in sorted(chosen)]).values())


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
