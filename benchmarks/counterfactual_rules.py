"""How should evidence be laid on regions? The comparison behind the rule of `attr/counterfactual_model.py`.

    python benchmarks/counterfactual_rules.py --recognizer xfr_compact128

Measured as `rule_trials.py` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from rule_trials import Draw, Inputs, planted_pairs, trial_parser, try_natural, try_planted
from torch import Tensor

from xfr_plugin.attr import Counterfactual, RegionalAnswer
from xfr_plugin.attr.counterfactual.attribution import _drawn
from xfr_plugin.attr.counterfactual.model import (
    _SHARPNESS,
    _SIGNS,
    CounterfactualModel,
    _measured,
    shipped_model,
)
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.swaps.regions import FaceRegions, face_regions


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


def drawing(case: Case) -> Draw:
    """Maps of a face by the names of rules."""
    return lambda name: case.drawn(RULES[name])


def main() -> None:
    options = trial_parser(__doc__).parse_args()
    recognizer = load_recognizer(options.recognizer)

    def of_both(inputs: Inputs) -> tuple[Draw, Draw]:
        probe, reference = read(recognizer, inputs)
        return drawing(probe), drawing(reference)

    pairs = planted_pairs(recognizer, options.count, options.seed)
    cases = (
        (planting, labels, drawing(read(recognizer, inputs, sides=1)[0]))
        for planting, labels, inputs in pairs
    )
    try_planted(recognizer, RULES, cases)
    if options.pairs:
        try_natural(recognizer, RULES, options.pairs, of_both)


if __name__ == "__main__":
    main()
