"""How well the fast form predicts what leaving regions out shows, of people it never saw; and what it costs.

    python benchmarks/fast_form.py --recognizer xfr_compact128 --split test --pairs 60
    python benchmarks/fast_form.py --recognizer xfr_compact128 --speed --threads 1

Natural pairs of LFW's test people (`pairsDevTest.txt`). The truth are values of leaving one region out with 14 real
strangers who hold their heads alike: test people who are in none of the pairs, so that nothing was taught with them.
Values are without a level, of every region that a face shows. R² is over the constant answer, the mean of each region
over pairs; *specific* is what is left after that mean is taken off. 95 % bootstrap intervals over people.
Needs `XFR_DATA`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from xfr_plugin.attr import Amortised, LeaveOneOut, region_effects
from xfr_plugin.explanation.pipeline import (
    FacePair,
    attribute_pairs,
    decide_pair,
    embed_faces,
    find_pair_regions,
)
from xfr_plugin.faces.folder import Split, in_split
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.preparation import AlignedFace
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.donors import composite_faces
from xfr_plugin.swaps.regions import FINE_REGIONS, regions_of
from xfr_plugin.training.effects_bank import Strangers, exact_effects
from xfr_plugin.training.engine import step_generator
from xfr_plugin.training.faces_data import find_faces, read_faces

STRANGERS, POOL, DRAWS, RUNS = 14, 400, 1000, 31
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """A face: its embedding D, and its effects R×D by who says so, and by every donor K×R×D."""

    unit: Tensor
    every: Tensor
    said: dict[str, Tensor]
    present: NDArray[np.bool_]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--network", type=Path, help="of one's own, instead of the one that ships")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--pairs", type=int, default=60, help="of each kind")
    parser.add_argument("--speed", action="store_true", help="measure times instead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = load_recognizer(options.recognizer)
    fast = Amortised(recognizer, network=options.network)
    report = (
        times(recognizer, fast)
        if options.speed
        else agreement(recognizer, fast, options.split, options.pairs)
    )
    print(json.dumps(report, indent=1, ensure_ascii=False))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def agreement(recognizer: Recognizer, fast: Amortised, split: Split, count: int) -> dict[str, object]:
    """Figures by kind of pair and by who says so."""
    pairs = {
        kind: chosen_pairs(split, same, count) for kind, same in (("genuine", True), ("impostor", False))
    }
    files = sorted({file for kind in pairs.values() for pair in kind for file in pair})
    faces = dict(zip(files, seen(recognizer, fast, files), strict=True))
    return {kind: compared(faces, some) for kind, some in pairs.items()}


def seen(recognizer: Recognizer, fast: Amortised, files: list[str]) -> list[Seen]:
    """Every face, looked at by all."""
    folder, size = data_root() / "faces" / "lfw112", recognizer.input_size
    images = read_faces(folder, {"all": files}, size).batch(torch.arange(len(files)))
    regions = find_regions(images)
    strangers = Strangers(read_faces(folder, strangers_for(files), size), POOL, 1)
    exact, shipped = exact_effects(recognizer), LeaveOneOut(recognizer)
    predicted = fast.effects(images, regions)
    left_out = region_effects(shipped, images, regions=regions)
    result = []
    for number, own in enumerate(regions_of(regions, FINE_REGIONS)):
        removals = strangers.draw(own, -1, STRANGERS, step_generator(5, number))
        unit, every = exact(images[number], own, removals)
        said = {"fast form": predicted[number].effects, "leave_one_out": left_out[number].effects}
        result.append(Seen(unit, every, said, own.present))
    return result


def compared(faces: dict[str, Seen], pairs: list[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Agreement with the mean over all donors; of half of the donors with the other half."""
    rows: dict[str, list[Values]] = {}
    people: list[tuple[str, str]] = []
    for pair in pairs:
        for own, other in (pair, pair[::-1]):
            face, partner = faces[own], faces[other].unit
            people.append((own.split("/")[0], other.split("/")[0]))
            said = face.said | {
                "all": face.every.mean(dim=0),
                "half": face.every[::2].mean(dim=0),
                "other half": face.every[1::2].mean(dim=0),
            }
            for name, effects in said.items():
                values = (effects.double() @ partner.double()).numpy()
                rows.setdefault(name, []).append(np.where(face.present, values, np.nan))
    known = {name: np.stack(values) for name, values in rows.items()}
    truth = known["all"]
    constant = np.broadcast_to(np.nanmean(truth, axis=0), truth.shape)
    weights = drawn_weights(people)
    return {
        "fast form": figures(known["fast form"], truth, weights),
        "leave_one_out, 4 composites": figures(known["leave_one_out"], truth, weights),
        "7 strangers against 7 others": figures(known["half"], known["other half"], weights),
        "constant answer": figures(constant, truth, weights),
    }


def figures(said: Values, truth: Values, weights: Values) -> dict[str, str]:
    """R² and correlations with their intervals."""
    means = [np.nanmean(values, axis=0) for values in (said, truth)]
    there = np.isfinite(truth) & np.isfinite(said)
    own, true = said[there], truth[there]
    own_rest, true_rest = ((values - mean)[there] for values, mean in zip((said, truth), means, strict=True))
    many = np.stack([np.broadcast_to(draw[:, None], truth.shape)[there] for draw in weights])
    measures: dict[str, Callable[[Values], float]] = {
        "R²": lambda w: float(1 - (w @ np.square(own - true)) / (w @ np.square(true_rest))),
        "linear": lambda w: correlation(own, true, w),
        "rank": lambda w: correlation(*ranked(own, true), w),
        "specific linear": lambda w: correlation(own_rest, true_rest, w),
        "specific rank": lambda w: correlation(*ranked(own_rest, true_rest), w),
    }
    result = {}
    for name, measure in measures.items():
        low, high = np.quantile([measure(draw) for draw in many[1:]], (0.025, 0.975))
        result[name] = f"{measure(many[0]):.2f} ({low:.2f}–{high:.2f})"
    return result


def ranked(a: Values, b: Values) -> tuple[Values, Values]:
    """Ranks of both."""
    return rankdata(a), rankdata(b)


def correlation(a: Values, b: Values, weights: Values) -> float:
    """Weighted linear correlation; 0 if one is constant."""
    a, b = (values - np.average(values, weights=weights) for values in (a, b))
    length = np.sqrt((weights @ a**2) * (weights @ b**2))
    return float((weights * a) @ b / length) if length > 1e-12 else 0.0


def drawn_weights(people: list[tuple[str, str]]) -> Values:
    """How often each row counts: once, and then as its people are drawn, with replacement."""
    names = sorted({name for pair in people for name in pair})
    place = {name: number for number, name in enumerate(names)}
    first, second = (np.array([place[pair[side]] for pair in people]) for side in (0, 1))
    random, draws = np.random.default_rng(0), [np.ones(len(people))]
    while len(draws) <= DRAWS:
        times_drawn = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        both = times_drawn[first] * np.where(first == second, 1, times_drawn[second])
        if both.any():
            draws.append(both.astype(np.float64))
    return np.stack(draws)


def chosen_pairs(split: Split, same: bool, count: int) -> list[tuple[str, str]]:
    """Pairs of people of a split of the test people."""
    kept = [
        (entry.probe, entry.reference)
        for entry in read_pairs(data_root() / "faces" / "pairsDevTest.txt")
        if entry.same is same
        and all(in_split(file.split("/")[0], split) for file in (entry.probe, entry.reference))
    ]
    return [kept[i] for i in np.random.default_rng(0).permutation(len(kept))[:count]]


def strangers_for(files: list[str]) -> dict[str, list[str]]:
    """A photograph each of test people who are in none of the pairs."""
    root = data_root() / "faces"
    people = find_faces(root / "lfw112", root / "peopleDevTest.txt")
    taken = {file.split("/")[0] for file in files}
    return {person: photos[:1] for person, photos in people.items() if person not in taken}


def times(recognizer: Recognizer, fast: Amortised) -> dict[str, float]:
    """Milliseconds of processor time for two crops in memory, medians, one after the other in each run.

    Not of a clock: other programs would count.
    """
    crops = [
        AlignedFace((face.permute(1, 2, 0) * 255).round().byte().numpy())
        for face in composite_faces(12, recognizer.input_size)[-2:]
    ]
    threshold = (recognizer.threshold, "its own")

    def verified(layers: tuple[str, ...] = ()) -> FacePair:
        probe, reference = embed_faces(recognizer, crops, layers)
        return decide_pair(recognizer, (probe, reference), threshold)

    pair = verified(fast.layers)
    known = find_pair_regions([pair])
    calls: dict[str, Callable[[], object]] = {
        "bare verification": verified,
        "verification, feature maps kept": lambda: verified(fast.layers),
        "outlines of both faces": lambda: find_pair_regions([pair]),
        "fast form, all else known": lambda: attribute_pairs(fast, known),
        "fast form, verification and outlines with it": lambda: attribute_pairs(
            fast, find_pair_regions([verified(fast.layers)])
        ),
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(RUNS + 2):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if run > 1:
                spent[name].append(time.process_time() - start)
    medians = {name: float(np.median(seconds)) for name, seconds in spent.items()}
    bare = medians["bare verification"]
    whole = medians["fast form, verification and outlines with it"]
    return {name: round(1000 * seconds, 2) for name, seconds in medians.items()} | {
        "fast form over bare verification": round(whole / bare, 2),
        "the same, outlines not counted": round((whole - medians["outlines of both faces"]) / bare, 2),
    }


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
