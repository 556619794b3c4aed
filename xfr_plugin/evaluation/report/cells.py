"""What the tables of an evaluation are made of: rows by what they are about, and cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from xfr_plugin.base.text import code_span
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.results import Results
from xfr_plugin.evaluation.summary import SummaryRow

__all__ = ["Column", "Lookup", "best_mean", "cell", "interval", "label"]

Column = tuple[str, Callable[[str], "SummaryRow | None"], "bool | None"]
"""Heading, row of a method, and whether higher is better (None: not ranked)."""


class Lookup:
    """Summary rows by what they are about."""

    def __init__(self, results: Results) -> None:
        self.rows = {(r.protocol, r.slice, r.variant, r.metric, r.at, r.method): r for r in results.summary()}

    def row(
        self, protocol: str, kind: str, variant: str, metric: str, method: str, at: float | None = None
    ) -> SummaryRow | None:
        """The row, if there is one."""
        return self.rows.get((protocol, kind, variant, metric, at, method))

    def column(self, heading: str, where: tuple[str, str, str, str], better: bool | None) -> Column:
        """A column of a table: protocol, slice, variant and metric."""
        return heading, lambda method: self.row(*where, method), better


def best_mean(rows: Sequence[SummaryRow | None], better: bool | None) -> float | None:
    """The best of the means, if it is known which way is better."""
    means = [row.mean for row in rows if row is not None]
    return None if better is None or not means else max(means) if better else min(means)


def cell(row: SummaryRow | None, best: float | None) -> str:
    """Mean and interval, bold if it is the best."""
    if row is None:
        return "–"
    digits = 3 if abs(row.mean) < 100 else 0
    mean = f"{row.mean:.{digits}f}"
    mean = f"**{mean}**" if best is not None and row.mean == best else mean
    return f"{mean} ({interval(row.low, row.high, digits)})"


def interval(low: float, high: float, digits: int) -> str:
    """An interval in words; or that there is none, since all pairs are of one person."""
    return "no interval" if math.isnan(low) else f"{low:.{digits}f}–{high:.{digits}f}"


def label(name: str) -> str:
    """Name of a method as code, title of a row beside the methods in italics."""
    title = beside(name)
    return f"*{title}*" if title else code_span(name)
