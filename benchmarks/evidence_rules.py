"""How should amortised evidence be laid on regions? The comparison behind the rule of `attr/evidence_model.py`.

    python benchmarks/evidence_rules.py --recognizer xfr_compact128

Two measures for each rule, both on the half of the test people that is chosen on. *Planted*: pixel AUC and top-1 of
planted evidence, by its own protocol, of plantings that move the score by more than .1. *Natural*: what the check of
faithfulness says of natural pairs. Needs the real faces (`XFR_DATA`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from faithfulness_calibration import natural_pairs
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr import Amortised, AmortisedAnswer
from xfr_plugin.attr.amortised import _grey
from xfr_plugin.attr.evidence_model import EvidenceCard, _stories
from xfr_plugin.evaluation import MOVED, PlantedPlan, build_pairs, pixel_auc
from xfr_plugin.evaluation.pairs import FaceFolder
from xfr_plugin.evaluation.planted import BLUR, blurred_saliency, candidate_masks
from xfr_plugin.evaluation.planting import region_parts
from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.faithfulness import check_faithfulness
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root


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
    laid = AmortisedAnswer(answer.regions, evidence(card, rule, answer), answer.answers, answer.margin)
    return _grey(laid).float().numpy()


def planted(recognizer: Recognizer, count: int, seed: int, mirrored: bool) -> None:
    """Print a table."""
    attribution = Amortised(recognizer, mirrored=mirrored)
    folder = FaceFolder(data_root() / "faces" / "lfw112", recognizer.input_size)
    people = folder.photos_of(read_people(data_root() / "faces" / "peopleDevTest.txt"), "select")
    plan = PlantedPlan(count=count, pairs=False, strengths=(), controls=False, seed=seed)
    plantings = plan.draw(people, folder.regions)
    pairs = build_pairs(recognizer, folder.folder, plantings, folder.regions)
    found: dict[str, dict[str, list[tuple[float, bool]]]] = {
        name: {"dissimilar": [], "similar": []} for name in RULES
    }
    for index in np.flatnonzero(np.abs(pairs.planted - pairs.clean) > MOVED):
        probe, reference = (x[index : index + 1].float() / 255 for x in (pairs.probes, pairs.references))
        (answer,), _ = attribution.regional((probe, reference))
        planting, labels = plantings[index], pairs.probe_regions[index]
        candidates, truth = candidate_masks(labels), labels.mask(*region_parts(planting.region))
        for name, rule in RULES.items():
            values = drawn(attribution.network.card, rule, answer)
            plain = blurred_saliency(values, planting, 0)
            best = max(candidates, key=lambda region: plain[candidates[region]].mean())
            auc = pixel_auc(blurred_saliency(values, planting, BLUR), truth, labels.face)
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
    attribution = Amortised(recognizer)
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in RULES}
    options, root = argparse.Namespace(people="select", pairs=count, seed=7), data_root() / "faces"
    for index, pair in enumerate(natural_pairs(root, options)):
        images = [fit_aligned(load_photo(root / "lfw112" / f), recognizer.input_size) for f in pair[:2]]
        stacked = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / 255).float()
        inputs = (stacked[:1], stacked[1:])
        (probe,), (reference,) = attribution.regional(inputs)
        for name, rule in RULES.items():
            maps = tuple(drawn(attribution.network.card, rule, answer) for answer in (probe, reference))
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
    parser.add_argument("--plain", action="store_true", help="do not average with mirrored faces")
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    planted(recognizer, options.count, options.seed, not options.plain)
    if options.pairs:
        natural(recognizer, options.pairs)


if __name__ == "__main__":
    main()
