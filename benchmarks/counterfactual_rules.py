"""How should evidence be laid on regions? The comparison behind the rule of `attr/counterfactual_model.py`.

    python benchmarks/counterfactual_rules.py --recognizer xfr_compact128

Two measures for each rule, both on the half of the test people that is chosen on. *Planted*: pixel AUC and top-1 of
planted evidence, by its own protocol, of plantings that move the score by more than .1. *Natural*: what the check of
faithfulness says of natural pairs. Needs the real faces (`XFR_DATA`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from faithfulness_calibration import natural_pairs
from torch import Tensor

from xfr_plugin.attr import Counterfactual, RegionalAnswer
from xfr_plugin.attr._interventions import FaceRegions, face_regions
from xfr_plugin.attr.counterfactual import _drawn
from xfr_plugin.attr.counterfactual_model import (
    _SHARPNESS,
    _SIGNS,
    CounterfactualModel,
    _measured,
    shipped_model,
)
from xfr_plugin.evaluation import MOVED, PlantedPlan, build_pairs, pixel_auc
from xfr_plugin.evaluation.pairs import FaceFolder
from xfr_plugin.evaluation.planted import BLUR, blurred_saliency, candidate_masks
from xfr_plugin.evaluation.planting import Planting, region_parts
from xfr_plugin.faces import RegionMap, fit_aligned, load_photo
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.faithfulness import check_faithfulness
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root


class Rule(NamedTuple):
    """How evidence is laid.

    Attributes:
        dense: part of it that lies by the sharpened posterior × area; the rest lies by the posterior.
        by_area: whether that rest is × area too.
        measured: part of what is left of the margin that is divided by what was measured, from the posterior of none.
    """

    dense: float
    by_area: bool
    measured: Callable[[Tensor], Tensor]


RULES = {
    "posterior of the region; rest evenly": Rule(0, False, torch.zeros_like),
    "posterior × area; rest evenly": Rule(0, True, torch.zeros_like),
    "a third, and two thirds dense (see text); rest evenly": Rule(2 / 3, False, torch.zeros_like),
    "the same; q of the rest as measured, q = none²: ships": Rule(2 / 3, False, torch.square),
    "the same; q = none": Rule(2 / 3, False, torch.clone),
    "the same; all of the rest as measured": Rule(2 / 3, False, torch.ones_like),
}


def evidence(
    model: CounterfactualModel, rule: Rule, readings: Tensor, areas: Tensor, margin: float
) -> Tensor:
    """As `CounterfactualModel.evidence` of a pair, by another rule; readings R×F."""
    parts, present = areas / areas.sum(), areas > 0
    beyond, none = torch.zeros_like(parts), torch.zeros_like(parts[:1])
    for story, sign in _SIGNS.items():
        fitted = model.stories["pair"][story]
        logits = fitted.logits(readings, present)
        likely, sharp = (logits * power for power in (1, _SHARPNESS))
        likely, sharp = likely.softmax(dim=-1), sharp.softmax(dim=-1)
        size = parts * present.sum()
        lying = likely[:-1] * (size if rule.by_area else 1)
        beyond = beyond + sign * fitted.effect * ((1 - rule.dense) * lying + rule.dense * sharp[:-1] * size)
        none = torch.maximum(none, likely[-1:])
    rest = margin - beyond.sum(dim=-1, keepdim=True)
    share = rule.measured(none)
    return beyond + rest * ((1 - share) * parts + share * _measured("pair", readings, rest, parts))


class Case(NamedTuple):
    """A face of a pair, its regions, what was read of it, and the margin of the pair."""

    image: Tensor
    regions: FaceRegions
    readings: Tensor
    margin: float

    def drawn(self, rule: Rule) -> np.ndarray:
        """The map H×W by a rule."""
        areas = self.readings.new_tensor(self.regions.masks.sum(axis=(1, 2)) * self.regions.present)
        laid = evidence(shipped_model(), rule, self.readings, areas, self.margin)
        answer = RegionalAnswer(self.regions, laid, torch.zeros_like(laid), self.margin)
        return _drawn(answer, self.image).sum(dim=0).numpy()


def read(recognizer: Recognizer, inputs: tuple[Tensor, Tensor], sides: int = 2) -> list[Case]:
    """Cases of the probe, or of both faces."""
    images, attribution = torch.cat(inputs), Counterfactual(recognizer)
    units = recognizer.embed(images)
    margin = float(units[0] @ units[1]) - recognizer.threshold
    regions, ordered = face_regions(images, found=True), (inputs, inputs[::-1])
    return [
        Case(images[side], regions[side], attribution.readings(ordered[side])[0], margin)
        for side in range(sides)
    ]


def planted_cases(
    recognizer: Recognizer, count: int, seed: int
) -> Iterator[tuple[Planting, RegionMap, Case]]:
    """Plantings that move the score by more than .1."""
    folder = FaceFolder(data_root() / "faces" / "lfw112", recognizer.input_size)
    people = folder.photos_of(read_people(data_root() / "faces" / "peopleDevTest.txt"), "select")
    plan = PlantedPlan(count=count, pairs=False, strengths=(), controls=False, seed=seed)
    plantings = plan.draw(people, folder.regions)
    pairs = build_pairs(recognizer, folder.folder, plantings, folder.regions)
    for index in np.flatnonzero(np.abs(pairs.planted - pairs.clean) > MOVED):
        probe, reference = (x[index : index + 1].float() / 255 for x in (pairs.probes, pairs.references))
        (case,) = read(recognizer, (probe, reference), sides=1)
        yield plantings[index], pairs.probe_regions[index], case


def planted(recognizer: Recognizer, count: int, seed: int) -> None:
    """Print a table."""
    found: dict[str, dict[str, list[tuple[float, bool]]]] = {
        name: {"dissimilar": [], "similar": []} for name in RULES
    }
    for planting, labels, case in planted_cases(recognizer, count, seed):
        candidates, truth = candidate_masks(labels), labels.mask(*region_parts(planting.region))
        for name, rule in RULES.items():
            drawn = case.drawn(rule)
            plain = blurred_saliency(drawn, planting, 0)
            best = max(candidates, key=lambda region: plain[candidates[region]].mean())
            auc = pixel_auc(blurred_saliency(drawn, planting, BLUR), truth, labels.face)
            found[name][planting.game].append((auc, best == planting.region))
    counts = {game: len(values) for game, values in next(iter(found.values())).items()}
    print(f"\n`{recognizer.name}`, plantings that move the score: {counts}\n")
    print("| rule | dissimilar: AUC / top-1 | similar: AUC / top-1 |\n|---|---|---|")
    for name, games in found.items():
        cells = [
            f"{auc:.3f} / {top:.3f}" for auc, top in (np.mean(values, axis=0) for values in games.values())
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def natural(recognizer: Recognizer, count: int) -> None:
    """Print a table."""
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in RULES}
    options, root = argparse.Namespace(people="select", pairs=count, seed=7), data_root() / "faces"
    for index, pair in enumerate(natural_pairs(root, options)):
        images = [fit_aligned(load_photo(root / "lfw112" / f), recognizer.input_size) for f in pair[:2]]
        stacked = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / 255).float()
        inputs = (stacked[:1], stacked[1:])
        cases = read(recognizer, inputs)
        for name, rule in RULES.items():
            maps = (cases[0].drawn(rule), cases[1].drawn(rule))
            checked = check_faithfulness(recognizer, inputs, maps, recognizer.threshold, seed=index)
            verdicts[name][checked.verdict] += 1
    print(f"\n`{recognizer.name}`, {count} natural pairs\n")
    print("| rule | supported | weak | contradicted |\n|---|---|---|---|")
    for name, words in verdicts.items():
        shares = [f"{words[word] / words.total():.0%}" for word in ("supported", "weak", "contradicted")]
        print(f"| {name} | {' | '.join(shares)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument(
        "--count", type=int, default=240, help="plantings a game, before the weak are left out"
    )
    parser.add_argument(
        "--pairs", type=int, default=40, help="natural pairs, half of them genuine; 0 for none"
    )
    parser.add_argument("--seed", type=int, default=11, help="of the plantings")
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    planted(recognizer, options.count, options.seed)
    if options.pairs:
        natural(recognizer, options.pairs)


if __name__ == "__main__":
    main()
