"""How should evidence be laid on regions? The comparison behind the rule of `attr/counterfactual_model.py`.

    xfr train counterfactual --recognizer xfr_compact128 --count 220 --seed 1
    python benchmarks/counterfactual_rules.py --examples runs/counterfactual --pairs 40

Two measures for each rule. *Planted*: the examples of training people, in five parts, each read by a model fitted on
the other four; how often the planted region is where evidence is densest (top-1, plantings that move the score by
more than .1), and the part of the other regions that it is above (AUC). The margin of an example is not kept: that of
its game is taken, `MARGINS`. *Natural*: what the check of faithfulness says on natural pairs of the half of the test
people that is chosen on. Needs the real faces (`XFR_DATA`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from faithfulness_calibration import natural_pairs
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from torch import Tensor

from xfr_plugin.attr import Counterfactual, RegionalAnswer
from xfr_plugin.attr._interventions import REGIONS
from xfr_plugin.attr.counterfactual import _drawn
from xfr_plugin.attr.counterfactual_model import CounterfactualModel, _measured, shipped_model
from xfr_plugin.evaluation import MOVED
from xfr_plugin.faces import fit_aligned, load_photo, template_regions
from xfr_plugin.faithfulness import check_faithfulness
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.reconstruction.exchange import EXCHANGED_REGIONS
from xfr_plugin.training.counterfactual import Examples, fit_model, read_examples

MARGINS = {True: -0.15, False: 0.25}
"""Of plantings in the similar and in the dissimilar game, about."""

Rule = Callable[[CounterfactualModel, Tensor, Tensor, float, Tensor], Tensor]
"""From model, readings …×R×F, pixels R, margin and mean effects by story and region 2×R to evidence …×R."""


def laid(model: CounterfactualModel, readings: Tensor, areas: Tensor, margin: float, measured: str) -> Tensor:
    """Posterior × area × mean effect; the rest evenly, by what was measured, or by the probability of none."""
    parts, stories = areas / areas.sum(), model.stories["pair"]
    similar, dissimilar = (stories[name].posterior(readings, areas > 0) for name in ("similar", "dissimilar"))
    owed = similar[..., :-1] * stories["similar"].effect - dissimilar[..., :-1] * stories["dissimilar"].effect
    beyond = owed * parts * (areas > 0).sum()
    rest = margin - beyond.sum(dim=-1, keepdim=True)
    share = {"no": 0.0, "all": 1.0, "half": 0.5}[measured]
    return beyond + rest * ((1 - share) * parts + share * _measured("pair", readings, rest, parts))


def own_effects(
    model: CounterfactualModel, readings: Tensor, areas: Tensor, margin: float, effects: Tensor
) -> Tensor:
    """Posterior × mean effect of that region; the rest evenly."""
    parts, stories = areas / areas.sum(), model.stories["pair"]
    similar, dissimilar = (
        stories[name].posterior(readings, areas > 0)[..., :-1] for name in ("similar", "dissimilar")
    )
    beyond = similar * effects[0] - dissimilar * effects[1]
    return beyond + (margin - beyond.sum(dim=-1, keepdim=True)) * parts


RULES: dict[str, Rule] = {
    "effect of the region itself, rest evenly": own_effects,
    "mean effect, rest evenly": lambda m, r, a, s, _: laid(m, r, a, s, "no"),
    "mean effect, half of the rest as measured": lambda m, r, a, s, _: laid(m, r, a, s, "half"),
    "mean effect, all of the rest as measured": lambda m, r, a, s, _: laid(m, r, a, s, "all"),
    "as shipped": lambda m, r, a, s, _: m.evidence("pair", r, a, s),
}


def planted(examples: Examples) -> dict[str, dict[bool, list[tuple[float, float]]]]:
    """AUC among the regions and top-1 of every example that counts, by rule and game."""
    found: dict[str, dict[bool, list[tuple[float, float]]]] = {name: {True: [], False: []} for name in RULES}
    areas = template_areas()
    for train, test in KFold(5, shuffle=True, random_state=0).split(np.arange(len(examples))):
        model, effects = fit_model(examples.only(train)), region_effects(examples.only(train))
        part = examples.only(test)
        for index in np.flatnonzero((part.region >= 0) & (part.region < 7) & (part.effect > MOVED)):
            similar, region = bool(part.similar[index]), int(part.region[index])
            shown = areas * torch.from_numpy(part.present[index])
            for name, rule in RULES.items():
                readings = torch.from_numpy(part.readings[index])
                evidence = rule(model, readings, shown, MARGINS[similar], effects)
                density = (evidence / shown.clamp_min(1)).numpy()[:7] * (1 if similar else -1)
                density[~part.present[index][:7]] = -np.inf
                others = np.delete(density, region)
                found[name][similar].append(
                    (float((density[region] > others).mean()), float(density[region] > others.max()))
                )
    return found


def natural(recognizer_name: str, examples: Examples, count: int) -> dict[str, Counter[str]]:
    """Verdicts by rule."""
    recognizer, root = load_recognizer(recognizer_name), data_root() / "faces"
    attribution, effects = Counterfactual(recognizer), region_effects(examples)
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in RULES}
    options = argparse.Namespace(people="select", pairs=count, seed=7)
    for index, pair in enumerate(natural_pairs(root, options)):
        images = [fit_aligned(load_photo(root / "lfw112" / f), recognizer.input_size) for f in pair[:2]]
        stacked = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / 255).float()
        inputs = (stacked[:1], stacked[1:])
        answers = [side[0] for side in attribution.regional(inputs)]
        read = [attribution.readings(ordered)[0] for ordered in (inputs, inputs[::-1])]
        for name, rule in RULES.items():
            maps = []
            for answer, readings, image in zip(answers, read, stacked, strict=True):
                areas = readings.new_tensor(answer.regions.masks.sum(axis=(1, 2)) * answer.regions.present)
                evidence = rule(shipped_model(), readings, areas, answer.margin, effects.to(readings))
                drawn = _drawn(RegionalAnswer(answer.regions, evidence, answer.errors, answer.margin), image)
                maps.append(drawn.sum(dim=0).numpy())
            checked = check_faithfulness(
                recognizer, inputs, (maps[0], maps[1]), recognizer.threshold, seed=index
            )
            verdicts[name][checked.verdict] += 1
    return verdicts


def region_effects(examples: Examples) -> Tensor:
    """Mean change of the score by a planting of each region, by story, 2×R."""
    return torch.tensor(
        [
            [
                examples.effect[(examples.region == r) & (examples.similar == similar)].mean()
                for r in range(len(REGIONS))
            ]
            for similar in (True, False)
        ]
    )


def template_areas() -> Tensor:
    """Pixels of the regions, R."""
    areas = template_regions((112, 112)).areas()
    return torch.tensor(
        [sum(areas[part] for part in parts) for parts in EXCHANGED_REGIONS.values()], dtype=torch.float64
    )


def cell(values: list[tuple[float, float]]) -> str:
    """AUC and top-1, means."""
    table: NDArray[np.float64] = np.array(values)
    return f"{table[:, 0].mean():.3f} / {table[:, 1].mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=Path, required=True, help="folder of .npz files")
    parser.add_argument(
        "--pairs", type=int, default=40, help="natural pairs, half of them genuine; 0 for none"
    )
    parser.add_argument("--recognizer", default="xfr_compact128", help="of the natural pairs")
    options = parser.parse_args()
    parts = {file.stem: read_examples(file) for file in sorted(options.examples.glob("*.npz"))}
    for name, examples in parts.items():
        found = planted(examples)
        counts = [len(next(iter(found.values()))[similar]) for similar in (False, True)]
        print(f"\n`{name}`, {counts[0]} and {counts[1]} plantings\n")
        print("| rule | dissimilar: AUC / top-1 | similar: AUC / top-1 |\n|---|---|---|")
        for rule, games in found.items():
            print(f"| {rule} | {cell(games[False])} | {cell(games[True])} |", flush=True)
    if options.pairs:
        verdicts = natural(options.recognizer, Examples.joined(list(parts.values())), options.pairs)
        print(f"\n{options.pairs} natural pairs, `{options.recognizer}`\n")
        print("| rule | supported | weak | contradicted |\n|---|---|---|---|")
        for rule, words in verdicts.items():
            shares = [f"{words[word] / words.total():.0%}" for word in ("supported", "weak", "contradicted")]
            print(f"| {rule} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
