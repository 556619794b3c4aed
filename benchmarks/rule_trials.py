"""Trying rules by which evidence is laid on regions: what `counterfactual_rules.py` and `evidence_rules.py` share.

Two measures for each rule, both on the half of the test people that is chosen on. *Planted*: pixel AUC and top-1 of
planted evidence, by its own protocol, of plantings that move the score by more than .1. *Natural*: what the check of
faithfulness says of natural pairs. Needs the real faces (`XFR_DATA`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from faithfulness_calibration import natural_pairs
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.evaluation import MIN_SCORE_CHANGE, PlantedPlan, build_pairs, pixel_auc
from xfr_plugin.evaluation.protocols.planted_evidence.scores import BLUR, blurred_saliency, candidate_masks
from xfr_plugin.explanation.faithfulness import check_faithfulness
from xfr_plugin.faces import RegionMap, fit_aligned, load_photo
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.planting import Planting, effect_of, region_parts

Inputs: TypeAlias = tuple[Tensor, Tensor]
Map: TypeAlias = NDArray[np.float32]
Draw: TypeAlias = Callable[[str], Map]
"""From the name of a rule to the signed map H×W of one face."""


def planted_pairs(
    recognizer: Recognizer, count: int, seed: int
) -> Iterator[tuple[Planting, RegionMap, Inputs]]:
    """Plantings that move the score by more than .1, the probe's regions, and the pair."""
    folder = FaceFolder(data_root() / "faces" / "lfw112", recognizer.input_size)
    people = folder.photos_of(read_people(data_root() / "faces" / "peopleDevTest.txt"), "select")
    plan = PlantedPlan(count=count, pairs=False, strengths=(), controls=False, seed=seed)
    plantings = plan.draw(people, folder.regions)
    pairs = build_pairs(recognizer, folder.folder, plantings, folder.regions)
    changes = (pairs.planted - pairs.clean).tolist()
    effects = [effect_of(p.game, change) for p, change in zip(plantings, changes, strict=True)]
    for index in np.flatnonzero(np.array(effects) > MIN_SCORE_CHANGE):
        probe, reference = (x[index : index + 1].float() / 255 for x in (pairs.probes, pairs.references))
        yield plantings[index], pairs.probe_regions[index], (probe, reference)


def try_planted(
    recognizer: Recognizer, rules: Iterable[str], cases: Iterable[tuple[Planting, RegionMap, Draw]]
) -> None:
    """Print a table."""
    found: dict[str, dict[str, list[tuple[float, bool]]]] = {
        name: {"dissimilar": [], "similar": []} for name in rules
    }
    for planting, labels, draw in cases:
        candidates, truth = candidate_masks(labels), labels.mask(*region_parts(planting.region))
        for name, games in found.items():
            values = draw(name)
            plain = blurred_saliency(values, planting, 0)
            best = max(candidates, key=lambda region: plain[candidates[region]].mean())
            auc = pixel_auc(blurred_saliency(values, planting, BLUR), truth, labels.face)
            games[planting.game].append((auc, best == planting.region))
    counts = {game: len(values) for game, values in next(iter(found.values())).items()}
    print(f"\n`{recognizer.name}`, plantings that move the score: {counts}\n")
    print("| rule | dissimilar: AUC / top-1 | similar: AUC / top-1 |\n|---|---|---|")
    for name, games in found.items():
        cells = [
            f"{auc:.3f} / {top:.3f}" for auc, top in (np.mean(values, axis=0) for values in games.values())
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def try_natural(
    recognizer: Recognizer, rules: Iterable[str], count: int, read: Callable[[Inputs], tuple[Draw, Draw]]
) -> None:
    """Print a table; `read` looks at a pair once, for maps of probe and reference by any rule."""
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in rules}
    options, root = argparse.Namespace(people="select", pairs=count, seed=7), data_root() / "faces"
    for index, pair in enumerate(natural_pairs(root, options)):
        images = [fit_aligned(load_photo(root / "lfw112" / f), recognizer.input_size) for f in pair[:2]]
        stacked = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / 255).float()
        inputs = (stacked[:1], stacked[1:])
        probe, reference = read(inputs)
        for name, words in verdicts.items():
            maps = (probe(name), reference(name))
            checked = check_faithfulness(recognizer, inputs, maps, recognizer.threshold, seed=index)
            words[checked.verdict] += 1
    print(f"\n`{recognizer.name}`, {count} natural pairs\n")
    print("| rule | supported | weak | contradicted |\n|---|---|---|---|")
    for name, words in verdicts.items():
        shares = [f"{words[word] / words.total():.0%}" for word in ("supported", "weak", "contradicted")]
        print(f"| {name} | {' | '.join(shares)} |", flush=True)


def trial_parser(description: str | None) -> argparse.ArgumentParser:
    """Options that both scripts have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument(
        "--count", type=int, default=240, help="plantings a game, before the weak are left out"
    )
    parser.add_argument(
        "--pairs", type=int, default=40, help="natural pairs, half of them genuine; 0 for none"
    )
    parser.add_argument("--seed", type=int, default=11, help="of the plantings")
    return parser
