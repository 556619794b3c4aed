"""One table: methods by judges. A method is as good as its worst judge says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xfr_plugin.attr.registry import METHODS
from xfr_plugin.base.text import markdown_text
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.engine import COST
from xfr_plugin.evaluation.report.cells import Lookup, best_mean, cell, label
from xfr_plugin.evaluation.results import Results
from xfr_plugin.evaluation.summary import SummaryRow
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE

__all__ = ["JUDGES", "Judge", "judges_table", "worst_shares"]


@dataclass(frozen=True)
class Judge:
    """A column of the table.

    Attributes:
        heading: of the column.
        asks: what, in one sentence.
        where: protocol, slice, variant and metric.
        chance: what a map that knows nothing has; of correlations 0.
        best: what a map that knows everything has, where no ceiling was measured.
    """

    heading: str
    asks: str
    where: tuple[str, str, str, str]
    chance: float = 0.5
    best: float = 1.0


class Share(NamedTuple):
    """How far of the way from chance to the ceiling a method comes, by one judge."""

    value: float
    low: float
    high: float
    judge: str


_MOVED = f"moved > {MIN_SCORE_CHANGE:g}"

JUDGES = (
    Judge(
        "planted, against",
        "a region of another person is put into the probe: does it argue most against?",
        ("planted", f"dissimilar, {_MOVED}", "", "auc"),
    ),
    Judge(
        "planted, for",
        "a region of the reference's person is put into the probe: does it argue most for?",
        ("planted", f"similar, {_MOVED}", "", "auc"),
    ),
    Judge(
        "two planted",
        "the same of two regions at once, against",
        ("planted", f"dissimilar, two regions, {_MOVED}", "", "auc"),
    ),
    Judge(
        "control",
        "a region of the same person is put in: .5 is right, more is a seam found",
        ("planted", "dissimilar, control", "", "auc"),
        chance=1.0,
        best=0.5,
    ),
    Judge(
        "where it went",
        "before and after a region is planted: does the map change there?",
        ("paired", "one region", "", "change auc"),
    ),
    Judge(
        "where it went, two",
        "the same of two regions at once",
        ("paired", "two regions", "", "change auc"),
    ),
    Judge(
        "occluder",
        "something hides a part of the probe: does that part argue most against?",
        ("occluders", "", "", "auc"),
    ),
    Judge(
        "occluder, change",
        "before and after: does the map change there?",
        ("occluders", "", "", "change auc"),
    ),
    Judge(
        "natural, genuine",
        "correlation of evidence by area with what regions truly contribute",
        ("natural", "genuine", "strangers", "density"),
        chance=0,
    ),
    Judge(
        "natural, this pair",
        "the same, of what tells this genuine pair from others",
        ("natural", "genuine", "strangers", "specific"),
        chance=0,
    ),
    Judge(
        "natural, impostor",
        "the same of impostor pairs",
        ("natural", "impostor", "strangers", "density"),
        chance=0,
    ),
    Judge(
        "natural, blurred",
        "genuine pairs again, regions being taken away by blur",
        ("natural", "genuine", "blur", "density"),
        chance=0,
    ),
)


def judges_table(results: Results, lookup: Lookup) -> list[str]:
    """A row for each method, by its worst judge; nothing, if fewer than two judges were asked."""
    asked = [judge for judge in JUDGES if any(lookup.row(*judge.where, name) for name in results.methods)]
    if len(asked) < 2:
        return []
    judged = [name for name in results.methods if any(lookup.row(*judge.where, name) for judge in asked)]
    worst = {name: worst_shares(lookup, asked, name) for name in judged}
    names = sorted(worst, key=lambda name: _place(name, worst[name]))
    best = {
        judge.heading: best_mean(
            [lookup.row(*judge.where, name) for name in names if not beside(name)], judge.best > judge.chance
        )
        for judge in asked
    }
    headings = ("method", "worst judge", *(judge.heading for judge in asked), "seconds a face", "passes")
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for name in names:
        cells = [cell(lookup.row(*judge.where, name), best[judge.heading]) for judge in asked]
        cost = lookup.row(COST, "", "", "seconds_per_face", name)
        price = (f"{cost.mean:.2g}" if cost else "–", METHODS[name].cost if name in METHODS else "–")
        row = (label(name), _share_cell(worst[name], name), *cells, *price)
        lines.append(f"| {' | '.join(row)} |")
    notes = [f"- **{judge.heading}**: {judge.asks}" for judge in asked]
    return ["## All judges", _TEXT, "\n".join(lines), "\n".join(notes)]


_TEXT = (
    "Methods by their worst judge: how far of the way from chance (AUC .5, correlation 0; of controls, AUC 1) to the "
    "ceiling (AUC 1, of controls .5; of correlations the noise ceiling) they come there. Rows beside the methods are "
    "not ranked. No method may be trained, tuned or chosen by a judge."
)


def worst_shares(lookup: Lookup, judges: Sequence[Judge], name: str) -> Share | None:
    """Of the judges that were asked about a method, the one that it comes off worst with."""
    shares = [
        share
        for judge in judges
        if (share := _share(judge, lookup.row(*judge.where, name), lookup.row(*judge.where, "ceiling")))
    ]
    return min(shares, default=None)


def _share(judge: Judge, row: SummaryRow | None, ceiling: SummaryRow | None) -> Share | None:
    if row is None:
        return None
    whole = (ceiling.mean if ceiling else judge.best) - judge.chance
    ends = [_way(at, judge, whole) for at in (row.low, row.high)]
    around = judge.best < judge.chance and row.low < judge.best < row.high
    return Share(_way(row.mean, judge, whole), min(ends), 1.0 if around else max(ends), judge.heading)


def _way(value: float, judge: Judge, whole: float) -> float:
    """Share of the way from chance to the best that a value has come; of controls, less is as wrong as more."""
    if judge.best < judge.chance:
        return 1 - abs(value - judge.best) / abs(whole)
    return (value - judge.chance) / whole


def _share_cell(share: Share | None, name: str) -> str:
    if share is None or beside(name):
        return "–"
    return f"{share.value:.2f} ({share.low:.2f}–{share.high:.2f}), {markdown_text(share.judge)}"


def _place(name: str, share: Share | None) -> tuple[bool, float]:
    return beside(name) is not None, -share.value if share else float("inf")
