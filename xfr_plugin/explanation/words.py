"""An explanation in plain words: the same for local calls, the command line, pictures, reports and the service.

What is said of a component is what was measured of it, with its error where the method has one. Components are named
as the feature list of facial comparison names them (FISWG, ASTM E3149). Hair and background are not the face, and are
said apart. What cannot be said is said, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xfr_plugin.base.text import digits_apart
from xfr_plugin.explanation.explanation import Explanation, RegionEvidence
from xfr_plugin.explanation.faithfulness import Faithfulness, FaithfulnessRow
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces.regions import OUTSIDE
from xfr_plugin.recognition.strength import Strength

__all__ = [
    "APART",
    "COMPONENTS",
    "Component",
    "check_in_words",
    "component_name",
    "components",
    "decision_in_words",
    "explanation_in_words",
    "face_in_words",
    "hardly_seen",
    "headline",
    "poor_in_words",
    "sentences",
    "share_of_area",
    "strength_in_words",
    "tension_in_words",
    "written",
]

COMPONENTS = {
    "forehead": "forehead",
    "right_brow": "right eyebrow",
    "left_brow": "left eyebrow",
    "right_eye": "right eye",
    "left_eye": "left eye",
    "right_cheek": "right cheek",
    "left_cheek": "left cheek",
    "nose": "nose",
    "mouth": "mouth",
    "chin": "chin and jaw",
    "right_ear": "right ear",
    "left_ear": "left ear",
    "hair": "hair",
    "background": "background",
    "outside": "hair and background",
}
"""Name of a region → what people call it. `outside` is everything around the face, where that is one region."""

APART = frozenset(OUTSIDE)
"""Regions that are not the face."""

_CHEEKS = ("right_cheek", "left_cheek")
_TURNED = 1 / 3
"""Share of the other cheek's area below which a cheek is hardly seen."""

_STRANGERS = (
    "Two people are any two of these data, mostly strangers: relatives and look-alikes can score higher."
)

_POOR = ("the face is", "tiny", "covered")
"""Words of cautions that say why a score may be too low."""

_WORTH_NAMING = 2.0
_ERRORS = 2.0

_BANDS = (
    (2.0, "no support either way"),
    (10.0, "weak support"),
    (100.0, "moderate support"),
    (1_000.0, "moderately strong support"),
    (10_000.0, "strong support"),
    (1_000_000.0, "very strong support"),
)
"""Verbal equivalents of likelihood ratios below these: ENFSI's guideline for evaluative reporting (2015)."""


@dataclass(frozen=True)
class Component:
    """Evidence of one region of a face, as it is told.

    Attributes:
        region: its name in the region map.
        share: its net evidence, in percent of all evidence in the picture; the sign says for (+) or against (−).
        error: standard error of the share; None where the method has none.
        area: its share of the picture's pixels, in percent.
    """

    region: str
    share: float
    error: float | None
    area: float

    @property
    def name(self) -> str:
        """What people call it."""
        return component_name(self.region)

    @property
    def clear(self) -> bool:
        """Whether it is worth naming: 2 % of the evidence, and twice its error where that is known."""
        return abs(self.share) >= max(_WORTH_NAMING, _ERRORS * (self.error or 0.0))

    @property
    def value(self) -> str:
        """Its share, with the error."""
        digits = 0 if self.error is None or self.error >= 1 else 1
        error = "" if self.error is None else f" ± {self.error:.{digits}f}"
        share = f"{self.share:+.{digits}f}"
        return f"{share if float(share) else share[1:]}{error} %".replace("-", "−")


def component_name(region: str) -> str:
    """What people call a region; the name itself of one that the table does not know."""
    return COMPONENTS.get(region, region.replace("_", " "))


def components(table: Sequence[RegionEvidence]) -> tuple[Component, ...]:
    """Evidence by region as shares, in the order of the table. Shares of an empty map are 0."""
    total = sum(region.similar + region.dissimilar for region in table)
    unit = 100 / total if total > 0 else 0.0
    pixels = max(sum(region.pixels for region in table), 1)
    return tuple(
        Component(
            region=region.region,
            share=unit * region.evidence,
            error=None if region.error is None else unit * region.error,
            area=100 * region.pixels / pixels,
        )
        for region in table
    )


def share_of_area(percent: float) -> str:
    """A share of the picture, never "0 %" of something that is there."""
    if percent == 0:
        return "not seen"
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %" if percent < 2 else f"{percent:.0f} %"


def headline(explanation: Explanation) -> str:
    """The answer in one line: whether the check supports the map, the decision, what argues most."""
    first = _doubt(explanation.faithfulness)
    sides = [components(face.regions) for face in (explanation.probe, explanation.reference)]
    split = {a.region: abs(a.share - b.share) for a, b in zip(*sides, strict=True) if _opposed(a, b)}
    mean = [
        Component(a.region, (a.share + b.share) / 2, _joint_error(a.error, b.error), (a.area + b.area) / 2)
        for a, b in zip(*sides, strict=True)
    ]
    decision = explanation.verification
    reasons = _reasons([part for part in mean if part.region not in split]) + _strongest_apart(mean)
    if split:
        most = sorted(split, key=lambda region: -split[region])[:3]
        reasons += (
            f"; for in one face, against in the other: {_listed([component_name(name) for name in most])}"
        )
    if _apart(mean):
        reasons += "; but most of the evidence is not of the face"
    score, threshold, _ = written(decision, 2)
    said = f"The score {score} is {_side(decision)} the threshold {threshold}"
    return " ".join(filter(None, (first, f"{said}; {reasons}.")))


def _strongest_apart(listed: Sequence[Component]) -> str:
    """Hair or background, where it argues more than every component of the face does."""
    said = ""
    for sign, words in ((1, "for"), (-1, "against")):
        strongest = max(listed, key=lambda one: sign * one.share, default=None)
        if strongest and strongest.region in APART and strongest.clear and sign * strongest.share > 0:
            said += (
                f"; {strongest.name}, which is not the face, argues more {words} a match than any of these"
            )
    return said


def explanation_in_words(explanation: Explanation) -> tuple[str, ...]:
    """An explanation in sentences; see `sentences`."""
    own = f"{explanation.method}: "
    return sentences(
        explanation.verification,
        (explanation.probe.regions, explanation.reference.regions),
        [note for note in explanation.notes if not note.startswith(own)],
        [note for note in explanation.notes if note.startswith(own)],
        explanation.faithfulness,
    )


def sentences(
    decision: Verification,
    tables: Sequence[Sequence[RegionEvidence] | None],
    cautions: Sequence[str],
    caveats: Sequence[str],
    check: Faithfulness | None = None,
) -> tuple[str, ...]:
    """A decision and its reasons in sentences.

    Args:
        decision: that is explained.
        tables: evidence by region of probe and reference; None for a side that was not explained.
        cautions: what makes the answer less reliable.
        caveats: of the method.
        check: what became of the maps' claims when they were tested; None if they were not.
    """
    lines = [_doubt(check), f"{decision_in_words(decision)}"]
    if decision.strength is not None:
        lines += [strength_in_words(decision.strength), tension_in_words(decision)]
    for name, table in zip(("probe", "reference"), tables, strict=True):
        lines += face_in_words(name, components(table)) if table else []
    lines.append(check_in_words(check))
    lines += [f"Read with care: {caution}." for caution in cautions]
    lines.append(poor_in_words(decision, cautions))
    lines += [f"{caveat}." for caveat in caveats]
    lines.append(
        "This shows what moves the score of this recognizer. It cannot say who somebody is, why two faces are alike, "
        "or what another recognizer or an examiner would go by."
    )
    return tuple(filter(None, lines))


def decision_in_words(decision: Verification) -> str:
    """The decision, the threshold, and what the threshold promises."""
    verdict = "Match" if decision.match else "No match"
    score, threshold, margin = written(decision, 3)
    distance = f"{margin.lstrip('+−')} " if decision.margin else ""
    return (
        f"{verdict}: the score {score} is {distance}{_side(decision)} the threshold {threshold} "
        f"({decision.threshold_source})."
    )


def written(decision: Verification, digits: int) -> tuple[str, str, str]:
    """Score, threshold and margin, with so many digits after the point, or more if they would look equal."""
    digits = digits_apart(decision.score, decision.threshold, digits)
    score, threshold = (f"{round(x, digits) + 0.0:.{digits}f}" for x in (decision.score, decision.threshold))
    margin = f"{decision.margin:+.{digits}f}"
    return score.replace("-", "−"), threshold.replace("-", "−"), margin.replace("-", "−")


def _side(decision: Verification) -> str:
    return "above" if decision.margin > 0 else "below" if decision.margin < 0 else "at"


def strength_in_words(strength: Strength) -> str:
    """How strongly the score speaks: the ratio, its verbal equivalent, the interval, and what the data can show."""
    same = strength.log10_lr >= 0
    value = abs(strength.log10_lr)
    likelier = "one person as for two" if same else "two people as for one"
    most = ", the most that the data can show" if strength.at_bound else ""
    interval = f", 95 % interval {_signed(strength.low)} to {_signed(strength.high)}"
    line = (
        f"The score is {_times(value)} times as likely for {likelier}{most}: {_band(value)}{_whom(value, same)} "
        f"(log10 likelihood ratio {_signed(strength.log10_lr)}{interval if strength.low < strength.high else ''}; "
        f"{strength.people:,} people of {strength.dataset} can show {_signed(strength.lower_bound)} … "
        f"{_signed(strength.upper_bound)})."
    )
    return f"{line} {_STRANGERS}" if same and _whom(value, same) else line


def tension_in_words(decision: Verification) -> str:
    """Why the decision is not what the score speaks for, where it is not; nothing elsewhere."""
    ratio = decision.strength.log10_lr if decision.strength else 0.0
    if not ratio or decision.match == (ratio > 0):
        return ""
    if decision.match:
        return "The threshold is low: it lets pairs match whose score speaks for two people."
    if decision.threshold_source == "given":
        return "The threshold is high: it refuses pairs whose score speaks for one person."
    return "The threshold keeps false matches rare: it refuses pairs whose score speaks too little for one person."


def check_in_words(check: Faithfulness | None, *, tried: bool = True) -> str:
    """The check in one line, and after it, if wanted, what became of the strongest claims that it tried."""
    if check is None:
        return "The maps were not tested on this pair: ask for the check."
    if check.statistic is None:
        return "Check: there was nothing in the maps that could be tested."
    said = {
        "supported": "the score follows what the maps say of the regions of the face",
        "contradicted": "the score does the opposite of what the maps say",
    }
    words = said.get(check.verdict, "it is not shown that the score follows what the maps say")
    line = f"Check: {check.verdict}, {words} (z = {_signed(check.statistic)})."
    rows = [row for face in ("probe", "reference") for row in _strongest(check.rows, face)] if tried else []
    return f"{line} Change of the score: {'; '.join(map(_tried, rows))}." if rows else line


def _strongest(rows: Sequence[FaithfulnessRow], face: str) -> list[FaithfulnessRow]:
    """The regions of which the map says the most, for and against."""
    alone = [row for row in rows if row.face == face and len(row.regions) == 1]
    ends = [max(alone, key=lambda row: row.said), min(alone, key=lambda row: row.said)] if alone else []
    return [row for row, sign in zip(ends, (1, -1), strict=False) if sign * row.said > 0]


def _tried(row: FaithfulnessRow) -> str:
    partners = "" if row.exchanged is None else f", {_signed(row.exchanged)} with the partner's"
    name = component_name(row.regions[0])
    return f"{row.face}, {name} ({_signed(100 * row.said, 0)} %): {_signed(row.replaced)} with a stranger's{partners}"


def poor_in_words(decision: Verification, cautions: Sequence[str]) -> str:
    """What a poor photograph means for a decision against one person; nothing where there is none."""
    if decision.match or not any(word in caution for caution in cautions for word in _POOR):
        return ""
    return "A poor photograph lowers the score of one person, too: no match does not say two people."


def _doubt(check: Faithfulness | None) -> str:
    if check is None or check.verdict == "supported":
        return ""
    if check.verdict == "contradicted":
        return "Do not rely on these maps: the check contradicts them."
    return "Do not rely on these maps: the check does not support them."


def face_in_words(name: str, listed: Sequence[Component]) -> list[str]:
    """What argues in one face, in sentences."""
    if not any(component.share for component in listed):
        return [f"There is nothing to explain in the {name}: its map is zero within rounding."]
    face = [component for component in listed if component.region not in APART]
    lines = [f"In the {name}, {_reasons(face, values=True)}."]
    apart = [component for component in listed if component.region in APART and component.clear]
    if apart:
        lines.append(f"Not of the face: {', '.join(f'{one.name} {one.value}' for one in apart)}.")
    if _apart(listed):
        lines.append(
            f"Most of the evidence in the {name} is not of the face: the score follows other things."
        )
    lines += hardly_seen(name, listed)
    if all(component.error is None for component in listed):
        lines.append("The method gives no errors, so that nobody knows how sure these shares are.")
    return lines


def _reasons(listed: Sequence[Component], values: bool = False) -> str:
    """What argues most for and against, of the face."""
    face = [component for component in listed if component.region not in APART and component.clear]
    said = []
    for sign in (1, -1):
        ranked = sorted((one for one in face if sign * one.share > 0), key=lambda one: -abs(one.share))[:3]
        names = [f"{one.name} ({one.value})" if values else one.name for one in ranked]
        said.append(_listed(names) if names else "nothing clear")
    return f"most for a match: {said[0]}; most against: {said[1]}"


def hardly_seen(name: str, listed: Sequence[Component]) -> list[str]:
    """Cheeks of which one is much the smaller, as in a face that is turned."""
    areas = {component.region: component.area for component in listed}
    pairs = [(side, areas.get(side), areas.get(other)) for side, other in (_CHEEKS, _CHEEKS[::-1])]
    return [
        f"The {name} is turned: its {component_name(side)} {_covering(area)}, the other {share_of_area(other)}; "
        "what argues on that side, for or against a match, may be no more than that it is hidden."
        for side, area, other in pairs
        if area is not None and other is not None and area < _TURNED * other
    ]


def _covering(area: float) -> str:
    return f"covers {share_of_area(area)} of the picture" if area else "is not seen"


def _opposed(one: Component, other: Component) -> bool:
    """Whether a component of the face clearly argues for in one face, and against in the other."""
    return one.region not in APART and one.clear and other.clear and one.share * other.share < 0


def _apart(listed: Sequence[Component]) -> bool:
    """Whether most of the evidence is not of the face."""
    outside = sum(abs(one.share) for one in listed if one.region in APART)
    return outside > sum(abs(one.share) for one in listed) / 2


def _listed(names: Sequence[str]) -> str:
    """Names in a row; a comma tells names apart that have an "and" of their own."""
    last = ", and" if any(" and " in name for name in names) else " and"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}{last} {names[-1]}"


def _joint_error(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first**2 + second**2) ** 0.5 / 2


def _band(log10: float) -> str:
    return next((words for least, words in _BANDS if 10**log10 < least), "extremely strong support")


def _whom(log10: float, same: bool) -> str:
    return "" if 10**log10 < _BANDS[0][0] else f" for {'one person' if same else 'two people'}"


def _times(log10: float) -> str:
    return f"{float(f'{10**log10:.2g}'):,.10g}"


def _signed(value: float, digits: int = 2) -> str:
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if float(text.replace("−", "-")) else text[1:]
