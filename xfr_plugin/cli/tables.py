"""Tables for a terminal of 80 columns, comparisons of 100: methods, evidence by region, comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from xfr_plugin.attr.registry import Method
from xfr_plugin.base.text import counted, printable
from xfr_plugin.bulk.summary import RegionRow
from xfr_plugin.explanation.comparison import Comparison, MethodResult
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, RegionEvidence
from xfr_plugin.explanation.faithfulness import Faithfulness
from xfr_plugin.explanation.words import APART, component_name, components

__all__ = [
    "comparison_table",
    "faithfulness_table",
    "method_card",
    "methods_table",
    "region_table",
    "summary_tables",
]


_ABREAST = 3
"""Groups beside each other, so that 80 columns are enough."""


def methods_table(methods: Iterable[Method]) -> Table:
    """Name, what a method needs, title, paper, its cost, and its options with their defaults."""
    table = Table(
        Column("method", no_wrap=True),
        Column(
            "what it is; where it was published; cost for a pair, D channels; options and defaults", ratio=1
        ),
        show_lines=True,
    )
    for method in methods:
        options = ", ".join(f"{name}={_value(value)}" for name, value in method.options().items())
        source = f"\n{method.paper} ({method.year})\n{method.cost}\n"
        table.add_row(
            Text.assemble((method.name, "bold"), f"\nneeds {method.needs}"),
            Text.assemble((method.title, "bold"), source, (options, "cyan")),
        )
    return table


def method_card(method: Method) -> dict[str, Any]:
    """What the registry says about a method, as JSON can hold it."""
    return {
        "name": method.name,
        "title": method.title,
        "class": f"{method.cls.__module__}.{method.cls.__qualname__}",
        "paper": method.paper,
        "year": method.year,
        "needs": method.needs,
        "cost": method.cost,
        "caveat": method.caveat,
        "options": method.options(),
    }


def region_table(explanation: Explanation) -> Table:
    """Net evidence by region in the units of the method, and its sum."""
    table = Table("region", "probe", "reference", title=f"net evidence by region ({explanation.method})")
    table.columns[1].justify = table.columns[2].justify = "right"
    sides = (explanation.probe, explanation.reference)
    for pair in zip(sides[0].regions, sides[1].regions, strict=True):
        table.add_row(component_name(pair[0].region), *map(_evidence, pair))
    table.add_section()
    table.add_row("total", *(f"{_total(side):+.4f}" for side in sides))
    return table


def summary_tables(rows: Sequence[RegionRow]) -> Iterator[Table]:
    """Mean net evidence of each region in groups of pairs by one method, with intervals; three groups a table.

    All pairs stand beside the decisions.
    """
    together = {"all": "decision"}
    for by in dict.fromkeys(together.get(row.by, row.by) for row in rows):
        own = [row for row in rows if together.get(row.by, row.by) == by]
        groups = list(dict.fromkeys((row.group, row.pairs) for row in own))
        for start in range(0, len(groups), _ABREAST):
            yield _summary_table(own, by, groups[start : start + _ABREAST])


def _summary_table(rows: Sequence[RegionRow], by: str, groups: Sequence[tuple[str, int]]) -> Table:
    title = f"net evidence, % of all in the pair ({rows[0].method}, by {by})"
    table = Table(Column("region", overflow="fold"), title=title)
    for group, pairs in groups:
        table.add_column(f"{group}\n{counted(pairs, 'pair')}", justify="right", overflow="fold")
    for region in dict.fromkeys(row.region for row in rows):
        own = {row.group: row for row in rows if row.region == region}
        table.add_row(component_name(region), *(_with_interval(own[group]) for group, _ in groups))
    return table


def _with_interval(row: RegionRow) -> str:
    interval = (
        ""
        if row.low is None or row.high is None
        else f" ({round(row.low, 1) + 0:.1f} … {round(row.high, 1) + 0:.1f})"
    )
    return f"{round(row.share, 1) + 0:+.1f}{interval}"


def faithfulness_table(found: Faithfulness) -> Table:
    """What the maps say of each region of both faces, and what the score did when it was replaced."""
    statistic = "nothing to test" if found.statistic is None else f"z = {found.statistic:+.1f}"
    table = Table(
        Column("region", no_wrap=True),
        Column("map says", justify="right", no_wrap=True),
        Column("a stranger's", justify="right", no_wrap=True),
        Column("the partner's", justify="right", no_wrap=True),
        title=Text.assemble("does the score follow? ", (found.verdict, "bold"), f" ({statistic})"),
    )
    shown = [row for row in found.rows if len(row.regions) == 1]
    for row in shown:
        table.add_row(
            f"{row.face}, {component_name(row.regions[0])}",
            f"{row.said:+.0%}",
            f"{'! ' if row.reverses else ''}{row.replaced:+.3f}",
            "" if row.exchanged is None else f"{row.exchanged:+.3f}",
        )
    reverses = "; !: reverses the decision" if any(row.reverses for row in shown) else ""
    table.caption = f"change of the score with another region in its place{reverses}" if shown else None
    return table


def comparison_table(comparison: Comparison) -> Table:
    """Cost, agreement with the other methods, and what each method says most strongly."""
    table = Table(
        Column("method", no_wrap=True),
        Column("seconds", justify="right"),
        Column("MiB", justify="right"),
        Column("agrees", justify="right"),
        Column("most for a match, %", ratio=1),
        Column("most against, %", ratio=1),
    )
    checked = any(explanation.faithfulness for explanation in comparison.explanations.values())
    if checked:
        table.add_column("check", no_wrap=True)
    for result in comparison.results:
        cells = (result.method, f"{result.seconds:.2f}", _memory(result), *_answer(comparison, result))
        table.add_row(*cells, *([_verdict(result)] if checked else []))
    return table


def _answer(comparison: Comparison, result: MethodResult) -> tuple[str | Text, ...]:
    if result.explanation is None:
        return "", Text(f"no answer: {printable(result.error or '')}", "red"), ""
    agreement = comparison.agreement.with_others(result.method)
    sides = (result.explanation.probe, result.explanation.reference)
    return (
        "" if math.isnan(agreement) else f"{agreement:.2f}",
        " | ".join(_extreme(side, 1) for side in sides),
        " | ".join(_extreme(side, -1) for side in sides),
    )


def _verdict(result: MethodResult) -> str:
    found = result.explanation.faithfulness if result.explanation else None
    return found.verdict if found else ""


def _evidence(region: RegionEvidence) -> str:
    if not region.pixels:
        return "not seen"
    error = "" if region.error is None else f" ± {region.error:.4f}"
    return f"{region.evidence:+.4f}{error}"


def _extreme(face: FaceExplanation, sign: int) -> str:
    """The component of the face with the largest net evidence of a sign, and its share in percent; a dash for less
    than a half."""
    shown = [part for part in components(face.regions) if part.region not in APART]
    best = max(shown, key=lambda part: sign * part.share, default=None)
    if best is None or sign * best.share < 0.5:  # it would be shown as nothing
        return "–"
    return f"{best.name} {best.share:+.0f}"


def _memory(result: MethodResult) -> str:
    return "" if result.peak_memory is None else f"{result.peak_memory / 2**20:.0f}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _total(face: FaceExplanation) -> float:
    return sum(region.evidence for region in face.regions)
