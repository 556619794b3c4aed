"""How far the truth itself puts a change of the score on what was changed: what no map can be asked to exceed.

    python benchmarks/score_changes.py --recognizer xfr_compact128 --count 14 --split test --out changes.json

One region or two are planted into probes of LFW's test people, as `xfr evaluate` plants them. Of each that moves
the score by more than .1, exact values of the face's eight players (seven regions, and all around them) are measured
before and after it, with real strangers posed alike: Shapley values, and what the score loses when a player alone is
taken away. *Inside* is the share of the change of these values that lies on the planted regions, over the sum of all
magnitudes; *top-1*, whether the density changes most on one of them. 95 % bootstrap intervals over plantings.
Needs `XFR_DATA`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin.evaluation.natural.strangers import pose_matched
from xfr_plugin.evaluation.natural.truth import coalition_embeddings, player_masks, shapley_matrix
from xfr_plugin.evaluation.pairs import PairEntry, load_pair, read_pair_list
from xfr_plugin.evaluation.plan import PlantedPlan
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedPair
from xfr_plugin.evaluation.summary import RESAMPLES
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE, PLANTED_REGIONS, effect_of

NAMES = list(PLANTED_REGIONS)
Values = NDArray[np.float64]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--count", type=int, default=28)
    parser.add_argument("--strangers", type=int, default=2)
    parser.add_argument("--split", default="dev", choices=("dev", "test", "all"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    root = data_root() / "faces"
    folder, people = FaceFolder(root, recognizer.input_size), read_pair_list(root / "pairsDevTest.txt").people
    setting = Setting(recognizer, 0.0, faces=folder, people=people)
    plan = PlantedPlan(count=options.count, strengths=(), controls=False)
    found: dict[str, list[float]] = {}
    for planting in plan.draw(folder.photos_of(people, options.split), folder.regions):
        pair = load_pair(folder, PairEntry.of(planting))
        assert isinstance(pair, PlantedPair)
        kind = "two regions" if "+" in planting.region else "one region"
        for key, value in changes(pair, setting, options.strangers).items():
            found.setdefault(f"{kind}, {key}", []).append(value)
    report = {key: interval(np.array(values)) for key, values in found.items()}
    options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    for key, (number, mean, low, high) in report.items():
        print(f"{key}: {mean:.2f} ({low:.2f}–{high:.2f}), n = {number}")


def changes(pair: PlantedPair, setting: Setting, count: int) -> dict[str, float]:
    """Shares of one planting; none, if it hardly moves the score."""
    planting = pair.planting
    partner, before, after = setting.embed(torch.stack([pair.reference, pair.before, pair.probe])).double()
    moved = float((after - before) @ partner)
    if effect_of(planting.game, moved) <= MIN_SCORE_CHANGE:
        return {}
    assert setting.faces is not None
    strangers = pose_matched(setting.faces, setting.people, pair.files, count, setting.seed)
    others = [setting.faces.pixels(file) for file in strangers]
    first, second = (
        coalition_embeddings(face, pair.probe_regions, "strangers", setting.embed, others) @ partner.numpy()
        for face in (pair.before, pair.probe)
    )
    rise = np.sign(moved) * (second - first)
    masks = player_masks(pair.probe_regions)
    alone = rise[-1] - rise[-1 - 2 ** np.arange(len(masks))]
    planted = [NAMES.index(name) for name in planting.region.split("+")]
    return {
        f"{name}, {what}": value
        for name, values in (("Shapley", shapley_matrix(len(masks)) @ rise), ("one left out", alone))
        for what, value in shares(values, masks.sum(axis=(1, 2))[: len(NAMES)], planted).items()
    }


def shares(values: Values, areas: NDArray[np.int_], planted: list[int]) -> dict[str, float]:
    """Of changes of the players' values, R: the share inside, and whether the density changes most there."""
    here = float(values[planted].sum())
    rest = float(np.abs(np.delete(values, planted)).sum())
    density = np.where(areas > 0, values[: len(areas)] / np.maximum(areas, 1), -np.inf)
    return {"inside": here / (abs(here) + rest), "top-1": float(int(density.argmax()) in planted)}


def interval(values: Values) -> tuple[int, float, float, float]:
    """How many, their mean, and its interval over resampled plantings."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return len(values), float(values.mean()), float(low), float(high)


if __name__ == "__main__":
    main()
