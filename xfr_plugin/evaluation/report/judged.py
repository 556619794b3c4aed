"""What the judges of a run say of each method: a method is as good as its worst judge says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.report.cells import Lookup
from xfr_plugin.evaluation.report.judges import JUDGES, Judge
from xfr_plugin.evaluation.summary import SummaryRow

__all__ = ["Judged", "Share", "worst_share"]


class Share(NamedTuple):
    """How far of the way from chance to the ceiling a method comes, by one judge; NaN are ends that are not known."""

    value: float
    low: float
    high: float
    judge: str


class _Scale(NamedTuple):
    """What no knowledge and all knowledge have, by one judge."""

    chance: float
    best: float


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
        around = judge.is_middle and row.low < scale.best < row.high
        return Share(_way(row.mean, scale, judge), min(ends), 1.0 if around else max(ends), judge.heading)


def worst_share(judged: Judged, judges: Sequence[Judge], name: str) -> Share | None:
    """Of some judges the one that a method comes off worst with."""
    return min((share for judge in judges if (share := judged.share(judge, name))), default=None)


def _scale(lookup: Lookup, judge: Judge, names: Sequence[str]) -> _Scale | None:
    ceiling = lookup.row(*judge.where, "ceiling")
    if judge.chance is not None and judge.best is not None:
        if ceiling is not None and not ceiling.low > judge.chance:  # it may be nothing
            return None
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
    if judge.is_middle:
        return 1 - abs(value - scale.best) / abs(scale.best - scale.chance)
    return (value - scale.chance) / (scale.best - scale.chance)


def _place(name: str, share: Share | None) -> tuple[bool, float]:
    return beside(name) is not None, -share.value if share else float("inf")
