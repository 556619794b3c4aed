"""Aims: what an explanation that can be believed should reach, and how far the default comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from xfr_plugin.attr.registry import METHODS, preferred_methods
from xfr_plugin.base.text import code_span, markdown_text
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import MOST_OF_CONTROLS
from xfr_plugin.evaluation.report.cells import Lookup, interval
from xfr_plugin.evaluation.report.judged import Judged
from xfr_plugin.evaluation.report.judges import Judge
from xfr_plugin.evaluation.results import Results
from xfr_plugin.evaluation.summary import SummaryRow
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE

__all__ = ["AIMS", "Aim", "aims_table"]


@dataclass(frozen=True)
class Aim:
    """What should be reached.

    Attributes:
        heading: of what.
        where: protocol, slice, variant and metric.
        at: the value.
        kind: `least`: at least that much; `near`: that, give or take .05; `of ceiling`: at least that share of the
            noise ceiling on the same pairs.
    """

    heading: str
    where: tuple[str, str, str, str]
    at: float
    kind: Literal["least", "near", "of ceiling"] = "least"

    @property
    def wanted(self) -> str:
        """In words."""
        if self.kind == "near":
            return f"{self.at:.2f} ± {_NEAR:.2f}"
        return f"≥ {self.at:.2f}" + (" of the ceiling" if self.kind == "of ceiling" else "")

    def row(self, results: Results, lookup: Lookup, name: str) -> SummaryRow | None:
        """What a method reaches; None too where the ceiling is not known to lie above 0."""
        if self.kind == "of ceiling":
            ceiling = lookup.row(*self.where, "ceiling")
            known = ceiling is not None and ceiling.low > 0
            return results.share_of("ceiling", self.where, name) if known else None
        return lookup.row(*self.where, name)

    def is_reached(self, value: float) -> bool:
        """Whether a value is as wanted."""
        return abs(value - self.at) <= _NEAR if self.kind == "near" else value >= self.at

    def verdict(self, row: SummaryRow) -> str:
        """Reached by the mean; not known, where the interval reaches it and the mean does not, or there is none."""
        if not row.has_interval:
            return "not known"
        nearest = min(max(row.low, self.at), row.high)
        return "yes" if self.is_reached(row.mean) else "not known" if self.is_reached(nearest) else "no"


_NEAR = 0.05
_MOVED = f"moved > {MIN_SCORE_CHANGE:g}"
_CHANGES = (
    ("change auc", "AUC", 0.95),
    ("change top1", "top-1", 0.90),
    ("change inside", "share of the change inside", 0.80),
    ("direction", "direction right", 0.98),
)


def _aims() -> Iterable[Aim]:
    for title, protocol, kind in (
        ("one region", "paired", "one region"),
        ("two regions", "paired", "two regions"),
        ("drawn over", "occluders", ""),
        ("on photographs", "photographs", ""),
    ):
        for metric, what, at in _CHANGES:
            yield Aim(f"where it went, {title}: {what}", (protocol, kind, "", metric), at)
    for game, word in (("dissimilar", "against"), ("similar", "for")):
        yield Aim(f"planted, {word}: AUC", ("planted", f"{game}, {_MOVED}", "", "auc"), 0.9)
        control = f"{game}, control"
        yield Aim(f"control, {word}: AUC", ("planted", control, "", "auc"), 0.5, "near")
        still = f"{control}, moved < {MOST_OF_CONTROLS:g}"
        yield Aim(
            f"control, {word}, that moves the score by less than {MOST_OF_CONTROLS:g}: AUC",
            ("planted", still, "", "auc"),
            0.5,
            "near",
        )
    for title, protocol, kind in (
        ("drawn over", "occluders", ""),
        ("on photographs", "photographs", ""),
        ("worn", "worn", _MOVED),
    ):
        yield Aim(f"{title}: covered area against", (protocol, kind, "", "right sign"), 0.95)
        yield Aim(f"{title}: AUC", (protocol, kind, "", "auc"), 0.85)
    for kind in ("genuine", "impostor"):
        for metric in ("total", "density", "excess", "specific"):
            where = ("natural", kind, "strangers", metric)
            yield Aim(f"natural, {kind}: {metric}", where, 0.95, "of ceiling")
        for operator in ("blur", "mean", "black"):
            where = ("natural", kind, operator, "density")
            yield Aim(f"natural, {kind}, by {operator}: density", where, 1.0, "of ceiling")


AIMS = tuple(_aims())


def aims_table(results: Results, lookup: Lookup) -> list[str]:
    """A row for each aim: what the default reaches, and who comes furthest; nothing without a table of judges."""
    judged = Judged(results.methods, lookup)
    ranked = [name for name in judged.names if not beside(name)]
    if len(judged.judges) < 2 or not ranked:
        return []
    name = next((method.name for method in preferred_methods() if method.name in ranked), ranked[0])
    lines = [f"| aim | wanted | {code_span(name)} | reached | furthest |", "|---" * 5 + "|"]
    for aim in AIMS:
        rows = {method: row for method in ranked if (row := aim.row(results, lookup, method))}
        if name in rows:
            lines.append(_line(aim, rows, name))
    lines += [
        f"| {markdown_text(heading)} | all | {count} of {len(names)} | {'yes' if count == len(names) else 'no'} | – |"
        for heading, count, names in _behind(judged, name, ranked)
    ]
    text = (
        f"What {code_span(name)} reaches, with 95 % intervals, of n pairs; *reached* goes by the mean, and is not "
        "known where the mean falls short and the interval does not, or where all pairs are of one person. Shares of "
        "the ceiling are means over means on the same pairs, and left out where the ceiling's interval reaches 0. "
        "*Furthest*: the method that comes furthest, and its mean."
    )
    return ["## Aims", text, "\n".join(lines)]


def _line(aim: Aim, rows: dict[str, SummaryRow], name: str) -> str:
    own = rows[name]
    best = min(
        rows, key=lambda method: abs(rows[method].mean - aim.at) if aim.kind == "near" else -rows[method].mean
    )
    value = f"{own.mean:.2f} ({interval(own.low, own.high, 2)}), n = {own.number}"
    furthest = f"{code_span(best)} {rows[best].mean:.2f}"
    return f"| {markdown_text(aim.heading)} | {aim.wanted} | {value} | {aim.verdict(own)} | {furthest} |"


def _behind(judged: Judged, name: str, ranked: Sequence[str]) -> Iterable[tuple[str, int, list[bool]]]:
    """Of whom a method is ahead with intervals that do not meet: heading, how often, and of all."""
    natural = [judge for judge in judged.judges if judged.row(judge, "constant")]
    peers = [other for other in ranked if not METHODS[other].paper.startswith(("ours", "after"))]
    for heading, judges, others in (
        ("constant answer behind, intervals apart", natural, ["constant"]),
        ("published methods behind by every judge, intervals apart", judged.judges, peers),
    ):
        ahead = [
            _is_ahead(judge, first, second)
            for judge in judges
            for other in others
            if (first := judged.row(judge, name)) and (second := judged.row(judge, other))
            if first.has_interval and second.has_interval
        ]
        if ahead:
            yield heading, sum(ahead), ahead


def _is_ahead(judge: Judge, first: SummaryRow, second: SummaryRow) -> bool:
    if judge.is_middle:
        return abs(first.mean - 0.5) < abs(second.mean - 0.5) and not (
            first.low < second.high and second.low < first.high
        )
    return first.high < second.low if judge.falls else first.low > second.high
