"""Tables for a terminal of 100 columns: methods, evidence by region, comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from xfr_plugin.attr.registry import Method
from xfr_plugin.comparison import Comparison, MethodResult
from xfr_plugin.explanation import Explanation, FaceExplanation, net_shares

__all__ = ["comparison_table", "method_card", "methods_table", "region_table"]


def methods_table(methods: Iterable[Method]) -> Table:
    """Name, title, paper, what a method needs, its cost, and its options with their defaults."""
    table = Table(
        Column("method", no_wrap=True),
        Column("what it is, where it was published, its options and their defaults", ratio=1),
        Column("needs", no_wrap=True),
        Column("cost for a pair, D channels", width=27),
        show_lines=True,
    )
    for method in methods:
        options = escape(", ".join(f"{name}={_value(value)}" for name, value in method.options().items()))
        source = f"{method.paper} ({method.year})"
        table.add_row(
            f"[bold]{method.name}[/]",
            f"[bold]{escape(method.title)}[/]\n{escape(source)}\n[cyan]{options}[/]",
            method.needs,
            method.cost,
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
    for probe, reference in zip(sides[0].regions, sides[1].regions, strict=True):
        table.add_row(probe.region.replace("_", " "), f"{probe.evidence:+.4f}", f"{reference.evidence:+.4f}")
    table.add_section()
    table.add_row("total", *(f"{_total(side):+.4f}" for side in sides))
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
    for result in comparison.results:
        table.add_row(result.method, f"{result.seconds:.2f}", _memory(result), *_answer(comparison, result))
    return table


def _answer(comparison: Comparison, result: MethodResult) -> tuple[str, ...]:
    if result.explanation is None:
        return "", f"[red]no answer: {escape(result.error or '')}[/]", ""
    agreement = comparison.agreement.with_others(result.method)
    sides = (result.explanation.probe, result.explanation.reference)
    return (
        "" if math.isnan(agreement) else f"{agreement:.2f}",
        " | ".join(_extreme(side, 1) for side in sides),
        " | ".join(_extreme(side, -1) for side in sides),
    )


def _extreme(face: FaceExplanation, sign: int) -> str:
    """The region with the largest net evidence of a sign, and its share in percent; a dash for less than a half."""
    shares = sign * net_shares(face)
    best = int(shares.argmax())
    if shares[best] < 0.5:  # it would be shown as nothing
        return "–"
    return f"{face.regions[best].region.replace('_', ' ')} {sign * shares[best]:+.0f}"


def _memory(result: MethodResult) -> str:
    return "" if result.peak_memory is None else f"{result.peak_memory / 2**20:.0f}"


def _value(value: Any) -> str:
    return f"({', '.join(map(_value, value))})" if isinstance(value, tuple) else str(value)


def _total(face: FaceExplanation) -> float:
    return sum(region.evidence for region in face.regions)
