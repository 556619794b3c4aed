"""How should amortised evidence be laid on regions? The comparison behind the rule of `attr/evidence_model.py`.

    python benchmarks/evidence_rules.py --recognizer xfr_compact128

Measured as `rule_trials.py` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rule_trials import Draw, Inputs, planted_pairs, trial_parser, try_natural, try_planted
from torch import Tensor

from xfr_plugin.attr import Amortised, AmortisedAnswer
from xfr_plugin.attr._interventions import laid_map
from xfr_plugin.attr.evidence_model import EvidenceCard, _stories
from xfr_plugin.recognition import load_recognizer


class Rule(NamedTuple):
    """How evidence is laid.

    Attributes:
        share: of what is left of the margin, what is divided by the expected changes; from p(neither) and the
            highest posterior of a region.
        joint: whether a pair has one story; else each question has a posterior of its own.
        changes: weight of the expected changes themselves, as far as neither story is true.
    """

    share: Callable[[float, float], float]
    joint: bool = True
    changes: float = 0.0


def above(bound: float) -> Callable[[float, float], float]:
    """Of p(neither): nothing up to a bound, then linearly to 1."""
    return lambda neither, _: max(0.0, (neither - bound) / (1 - bound))


def below(bound: float) -> Callable[[float, float], float]:
    """Of the highest posterior of a region: from 1 linearly to nothing at a bound."""
    return lambda _, highest: max(0.0, 1 - highest / bound)


def never(neither: float, highest: float) -> float:
    """All of the rest lies evenly."""
    del neither, highest
    return 0.0


RULES = {
    "two questions; rest evenly": Rule(never, joint=False),
    "one story; rest evenly": Rule(never),
    "one story; rest as expected from p(neither) = 0.5": Rule(above(0.5)),
    "one story; rest as expected from p(neither) = 0.65": Rule(above(0.65)),
    "one story; rest as expected from p(neither) = 0.8": Rule(above(0.8)),
    "one story; rest as expected below p(region) = 0.15": Rule(below(0.15)),
    "one story; rest as expected below p(region) = 0.25": Rule(below(0.25)),
    "one story; rest as expected below p(region) = 0.35": Rule(below(0.35)),
    "one story; rest as expected below p(region) = 0.5": Rule(below(0.5)),
    "one story; rest as expected": Rule(lambda *_: 1.0),
    "one story, and the changes; rest evenly": Rule(never, changes=1.0),
}


def evidence(card: EvidenceCard, rule: Rule, answer: AmortisedAnswer) -> Tensor:
    """As `EvidenceModel.evidence`, by another rule, of one face."""
    answers = answer.answers
    areas = torch.from_numpy(answer.regions.masks.sum(axis=(1, 2)) * answer.regions.present)[None].double()
    present, parts = areas > 0, areas / areas.sum()
    differs, alike, neither = _stories(answers)
    if not rule.joint:
        differs, alike = (logits.softmax(dim=1)[:, :-1] for logits in (answers.differs, answers.alike))
    stands_out = (alike * card.alike - differs * card.differs) * parts * present.sum()
    gain, loss = (values.clamp_min(0) * present for values in (answers.gain, answers.loss))
    stands_out = stands_out + rule.changes * neither * (loss - gain)
    rest = answer.margin - stands_out.sum()
    expected = (loss if rest > 0 else gain) + 1e-3 * parts
    share = rule.share(float(neither), float(torch.maximum(differs, alike).max()))
    return (stands_out + rest * ((1 - share) * parts + share * expected / expected.sum()))[0]


def drawn(card: EvidenceCard, rule: Rule, answer: AmortisedAnswer) -> NDArray[np.float32]:
    """The map H×W by a rule."""
    return laid_map(answer.regions, evidence(card, rule, answer)).float().numpy()


def drawing(card: EvidenceCard, answer: AmortisedAnswer) -> Draw:
    """Maps of a face by the names of rules."""
    return lambda name: drawn(card, RULES[name], answer)


def main() -> None:
    parser = trial_parser(__doc__)
    parser.add_argument("--plain", action="store_true", help="do not average with mirrored faces")
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    attribution = Amortised(recognizer, mirrored=not options.plain)

    def read(inputs: Inputs) -> tuple[Draw, Draw]:
        (probe,), (reference,) = attribution.regional(inputs)
        card = attribution.network.card
        return drawing(card, probe), drawing(card, reference)

    pairs = planted_pairs(recognizer, options.count, options.seed)
    try_planted(
        recognizer, RULES, ((planting, labels, read(inputs)[0]) for planting, labels, inputs in pairs)
    )
    if options.pairs:
        try_natural(recognizer, RULES, options.pairs, read)


if __name__ == "__main__":
    main()
