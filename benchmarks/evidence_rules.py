"""How should amortised evidence be laid on regions? The comparison behind the rule of `attr/evidence_model.py`.

    python benchmarks/evidence_rules.py --recognizer xfr_compact128

Measured as `rule_trials.py` says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rule_trials import Draw, Inputs, planted_pairs, trial_parser, try_natural, try_planted
from torch import Tensor

from xfr_plugin.attr import Amortised, AmortisedAnswer
from xfr_plugin.attr.amortised.model import EvidenceCard, _stories
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.swaps.regions import laid_map


class Rule(NamedTuple):
    """How evidence is laid.

    Attributes:
        start: of what is left of the margin, as much is divided by the expected changes as p(neither) lies between
            this and 1.
        joint: whether a pair has one story; else each question has a posterior of its own.
        doubted: whether an expected change counts the less, the likelier the region contradicts it.
        changes: weight of the expected changes themselves, as far as neither story is true.
    """

    start: float = 1.0
    joint: bool = True
    doubted: bool = False
    changes: float = 0.0

    def share(self, neither: float) -> float:
        """What part of the rest is divided by the expected changes."""
        return max(0.0, (neither - self.start) / (1 - self.start)) if self.start < 1 else 0.0


RULES = {
    "two questions; rest evenly": Rule(joint=False),
    "one story; rest evenly": Rule(),
    "one story; rest as expected from p(neither) = 0.65": Rule(0.65),
    "one story; rest as expected from p(neither) = 0.5": Rule(0.5),
    "the same, doubted; from 0.65": Rule(0.65, doubted=True),
    "the same, doubted; from 0.5": Rule(0.5, doubted=True),
    "the same, doubted; from 0.3": Rule(0.3, doubted=True),
    "the same, doubted; from 0": Rule(0.0, doubted=True),
    "one story, and the changes; rest evenly": Rule(changes=1.0),
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
    against = differs if rest > 0 else alike
    doubt = against / against.max().clamp_min(1e-3) * rule.doubted
    expected = (loss if rest > 0 else gain) * (1 - doubt) + 1e-3 * parts
    share = rule.share(float(neither))
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
