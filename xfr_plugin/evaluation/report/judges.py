"""One table: methods by judges. A method is as good as its worst judge says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

__all__ = ["JUDGES", "Judge", "Judged", "Share", "judges_table", "worst_share"]


@dataclass(frozen=True)
class Judge:
    """A column of the table.

    Attributes:
        group: the question that it belongs to.
        heading: of the column.
        asks: what, in one sentence.
        where: protocol, slice, variant and metric.
        chance: what a map that knows nothing has; of correlations 0; None: what the random map has in this run.
        best: what a map that knows everything has, where no ceiling was measured; None: the best method of this run.
        falls: lower is better.
    """

    group: str
    heading: str
    asks: str
    where: tuple[str, str, str, str]
    chance: float | None = 0.5
    best: float | None = 1.0
    falls: bool = False


class Share(NamedTuple):
    """How far of the way from chance to the ceiling a method comes, by one judge."""

    value: float
    low: float
    high: float
    judge: str


class _Scale(NamedTuple):
    """What no knowledge and all knowledge have, by one judge."""

    chance: float
    best: float


_MOVED = f"moved > {MIN_SCORE_CHANGE:g}"


def _planted(heading: str, asks: str, kind: str) -> Judge:
    return Judge("planted", heading, asks, ("planted", f"{kind}, {_MOVED}", "", "auc"))


def _changed(heading: str, asks: str, protocol: str, kind: str) -> Judge:
    return Judge("where it went", heading, asks, (protocol, kind, "", "change auc"))


def _natural(heading: str, asks: str, kind: str, variant: str, metric: str) -> Judge:
    return Judge("natural", heading, asks, ("natural", kind, variant, metric), chance=0)


def _removal(heading: str, asks: str, protocol: str, variant: str) -> Judge:
    where = (protocol, "", variant, "margin_auc")
    return Judge("removal", heading, asks, where, chance=None, best=None, falls=protocol == "deletion")


JUDGES = (
    _planted(
        "planted, against",
        "a region of another person is put into the probe: does it argue most against?",
        "dissimilar",
    ),
    _planted(
        "planted, for",
        "a region of the reference's person is put into the probe: does it argue most for?",
        "similar",
    ),
    _planted("two planted", "the same of two regions at once, against", "dissimilar, two regions"),
    Judge(
        "planted",
        "control",
        "a region of the same person is put in: .5 is right, more is a seam found",
        ("planted", "dissimilar, control", "", "auc"),
        chance=1.0,
        best=0.5,
    ),
    _changed(
        "went, one region",
        "before and after a region is planted: does the map change there?",
        "paired",
        "one region",
    ),
    _changed("went, two regions", "the same of two regions at once", "paired", "two regions"),
    _changed("went, drawn over", "before and after something is drawn over the probe", "occluders", ""),
    _changed(
        "went, on photographs",
        "the same drawn on the photograph, which is detected and aligned after it",
        "photographs",
        "",
    ),
    Judge(
        "hidden",
        "drawn over",
        "something drawn hides a part of the probe: does that part argue most against?",
        ("occluders", "", "", "auc"),
    ),
    Judge(
        "hidden",
        "on photographs",
        "the same drawn on the photograph, which is detected and aligned after it",
        ("photographs", "", "", "auc"),
    ),
    Judge(
        "hidden",
        "worn",
        "the person wears something in one photograph, and the score is lower: does it argue most against?",
        ("worn", _MOVED, "", "auc"),
    ),
    _natural(
        "natural, genuine",
        "correlation of evidence by area with what regions truly contribute",
        "genuine",
        "strangers",
        "density",
    ),
    _natural(
        "natural, this pair",
        "the same, of what tells this genuine pair from others",
        "genuine",
        "strangers",
        "specific",
    ),
    _natural("natural, impostor", "the same of impostor pairs", "impostor", "strangers", "density"),
    _natural(
        "natural, blurred",
        "genuine pairs again, regions being taken away by blur",
        "genuine",
        "blur",
        "density",
    ),
    _removal(
        "deletion",
        "what argues for a match goes first, a stranger's face comes: does the score of a genuine pair fall soon?",
        "deletion",
        "similar, probe, strangers",
    ),
    _removal(
        "insertion",
        "what argues for a match comes first, into a stranger's face: does the score rise soon?",
        "insertion",
        "similar, probe, strangers",
    ),
    _removal(
        "deletion, impostor",
        "what argues against goes first: does the score of an impostor pair rise soon?",
        "deletion",
        "dissimilar, probe, strangers",
    ),
    _removal(
        "insertion, impostor",
        "what argues against comes first: does the score stay down?",
        "insertion",
        "dissimilar, probe, strangers",
    ),
    _removal("deletion, black", "as deletion, with black", "deletion", "similar, probe, black"),
    _removal("insertion, black", "as insertion, with black", "insertion", "similar, probe, black"),
)


class Judged:
    """What the judges of a run say: who was asked, of whom, and on which scale.

    Attributes:
        judges: that were asked.
        names: methods, by their worst judge, and what stands beside them.
        worst: of each, the judge that it comes off worst with.
    """

    def __init__(self, methods: Sequence[str], lookup: Lookup) -> None:
        self.lookup = lookup
        self.judges = [judge for judge in JUDGES if any(lookup.row(*judge.where, name) for name in methods)]
        judged = [name for name in methods if any(self.row(judge, name) for judge in self.judges)]
        self._scales = {judge.heading: _scale(lookup, judge, judged) for judge in self.judges}
        self.worst = {name: worst_share(self, self.judges, name) for name in judged}
        self.names = sorted(judged, key=lambda name: _place(name, self.worst[name]))

    def row(self, judge: Judge, name: str) -> SummaryRow | None:
        """What a judge says of a method."""
        return self.lookup.row(*judge.where, name)

    def share(self, judge: Judge, name: str) -> Share | None:
        """How far a method comes; None where it was not judged, or the judge tells no method from chance."""
        row, scale = self.row(judge, name), self._scales[judge.heading]
        if row is None or scale is None:
            return None
        ends = [_way(at, scale, judge) for at in (row.low, row.high)]
        around = _is_middle(judge) and row.low < scale.best < row.high
        return Share(_way(row.mean, scale, judge), min(ends), 1.0 if around else max(ends), judge.heading)


def worst_share(judged: Judged, judges: Sequence[Judge], name: str) -> Share | None:
    """Of some judges the one that a method comes off worst with."""
    return min((share for judge in judges if (share := judged.share(judge, name))), default=None)


def judges_table(results: Results, lookup: Lookup) -> list[str]:
    """A row for each method, by its worst judge, then what each judge says; nothing of fewer than two judges."""
    judged = Judged(results.methods, lookup)
    if len(judged.judges) < 2:
        return []
    groups: dict[str, list[Judge]] = {}
    for judge in judged.judges:
        groups.setdefault(judge.group, []).append(judge)
    blocks = ["## All judges", _TEXT, _overview(judged, groups)]
    for group, judges in groups.items():
        notes = [f"- **{judge.heading}**: {judge.asks}" for judge in judges]
        blocks += [f"### {group.capitalize()}", "\n".join(notes), _details(judged, judges)]
    return blocks


_TEXT = (
    "Methods by their worst judge: how far of the way from chance (AUC .5, correlation 0; of controls, AUC 1) to the "
    "ceiling (AUC 1, of controls .5; of correlations the noise ceiling) they come there. Of removal, chance is the "
    "random map, and the best method the ceiling; where the two are not apart, it ranks nobody. Under each question "
    "stands its worst judge. Rows beside the methods are not ranked. No method may be trained, tuned or chosen by a "
    "judge."
)


def _overview(judged: Judged, groups: Mapping[str, Sequence[Judge]]) -> str:
    lines = [("method", "worst judge", *groups, "seconds a face", "passes")]
    for name in judged.names:
        by_group = [worst_share(judged, judges, name) for judges in groups.values()]
        cost = judged.lookup.row(COST, "", "", "seconds_per_face", name)
        price = (f"{cost.mean:.2g}" if cost else "–", METHODS[name].cost if name in METHODS else "–")
        shares = (f"{share.value:.2f}" if share else "–" for share in by_group)
        lines.append((label(name), _share_cell(judged.worst[name], name), *shares, *price))
    return _markdown(lines)


def _details(judged: Judged, judges: Sequence[Judge]) -> str:
    ranked = [name for name in judged.names if not beside(name)]
    best = [best_mean([judged.row(judge, name) for name in ranked], _rises(judge)) for judge in judges]
    lines = [("method", *(judge.heading for judge in judges))]
    for name in judged.names:
        rows = [judged.row(judge, name) for judge in judges]
        if any(rows):
            lines.append((label(name), *map(cell, rows, best)))
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


def _scale(lookup: Lookup, judge: Judge, names: Sequence[str]) -> _Scale | None:
    ceiling = lookup.row(*judge.where, "ceiling")
    if judge.chance is not None and judge.best is not None:
        return _Scale(judge.chance, ceiling.mean if ceiling else judge.best)
    random = lookup.row(*judge.where, "chance_random")
    found = [row for name in names if not beside(name) and (row := lookup.row(*judge.where, name))]
    if random is None or not found:
        return None
    best = min(found, key=lambda row: row.mean if judge.falls else -row.mean)
    apart = best.high < random.low if judge.falls else best.low > random.high
    return _Scale(random.mean, best.mean) if apart else None


def _way(value: float, scale: _Scale, judge: Judge) -> float:
    """Share of the way from chance to the best that a value has come; of controls, less is as wrong as more."""
    if _is_middle(judge):
        return 1 - abs(value - scale.best) / abs(scale.best - scale.chance)
    return (value - scale.chance) / (scale.best - scale.chance)


def _is_middle(judge: Judge) -> bool:
    """Whether a judge wants a value that may be missed on both sides."""
    return judge.chance is not None and judge.best is not None and judge.best < judge.chance


def _rises(judge: Judge) -> bool:
    return not (judge.falls or _is_middle(judge))


def _share_cell(share: Share | None, name: str) -> str:
    if share is None or beside(name):
        return "–"
    return f"{share.value:.2f} ({share.low:.2f}–{share.high:.2f}), {markdown_text(share.judge)}"


def _place(name: str, share: Share | None) -> tuple[bool, float]:
    return beside(name) is not None, -share.value if share else float("inf")
