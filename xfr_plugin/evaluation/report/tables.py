"""Tables of an evaluation in Markdown: a row for each method, chance baselines last, with 95 % intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from xfr_plugin.base.text import code_span, markdown_text
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.report.cells import Column, Lookup, best_mean, cell, label
from xfr_plugin.evaluation.report.heading import what_was_run
from xfr_plugin.evaluation.results import AGREEMENT, Results
from xfr_plugin.evaluation.summary import SummaryRow
from xfr_plugin.evaluation.work import COST
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE

__all__ = ["markdown"]


def markdown(results: Results, plots: Sequence[str], has_judges: bool = False) -> str:
    """A table for each judge, with what was run, and what failed.

    Args:
        results: of a run.
        plots: names of pictures.
        has_judges: there is a page of all judges, too.
    """
    lookup = Lookup(results)
    blocks = [
        "# Evaluation",
        what_was_run(results),
        "All judges in one table: [judges.md](judges.md)." if has_judges else "",
    ]
    if "planted" in results.protocols:
        blocks += _planted(results, lookup)
    for name, protocol in results.protocols.items():
        if name != "planted":
            blocks += _generic(results, lookup, name, protocol.title, protocol.higher_is_better)
    blocks += [_costs(results, lookup), _failures(results)]
    blocks += [
        f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in plots if name != "judges.png"
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _planted(results: Results, lookup: Lookup) -> list[str]:
    better, blocks = (
        results.protocols["planted"].higher_is_better,
        [f"## {results.protocols['planted'].title}"],
    )
    for game in ("dissimilar", "similar"):
        moved = f"{game}, moved > {MIN_SCORE_CHANGE:g}"
        where: list[tuple[str, str, str, str]] = [
            ("AUC", game, "", "auc"),
            ("top-1", game, "", "top1"),
            ("energy", game, "", "energy"),
            ("pointing", game, "", "pointing"),
            (f"moved > {MIN_SCORE_CHANGE:g}: AUC", moved, "", "auc"),
            ("top-1", moved, "", "top1"),
            ("controls: AUC", f"{game}, control", "", "auc"),
            ("average map: AUC", game, "average map", "auc"),
        ]
        columns = [
            lookup.column(title, ("planted", kind, variant, metric), _ranked(better, metric, variant or kind))
            for title, kind, variant, metric in where
        ]
        blocks += [
            f"### {game.capitalize()} game, single regions",
            _note(results, lookup, game),
            _table(results, columns),
            _leads(results, lookup, game),
        ]
        two = f"{game}, two regions"
        columns = [
            lookup.column(title, ("planted", kind, "", metric), _ranked(better, metric, ""))
            for title, kind, metric in (
                ("two regions: AUC", two, "auc"),
                ("top-1", two, "top1"),
                ("both", two, "both"),
                (f"moved > {MIN_SCORE_CHANGE:g}: AUC", f"{two}, moved > {MIN_SCORE_CHANGE:g}", "auc"),
                ("top-1", f"{two}, moved > {MIN_SCORE_CHANGE:g}", "top1"),
            )
        ]
        kinds = sorted(
            {key[1] for key in lookup.rows if key[0] == "planted" and key[1].startswith(f"{game}, ")}
        )
        others = [kind for kind in kinds if not kind.startswith((two, moved)) and kind != f"{game}, control"]
        columns += [
            lookup.column(
                f"{kind.removeprefix(f'{game}, ')}: AUC",
                ("planted", kind, "", "auc"),
                None if "control" in kind else True,
            )
            for kind in others
        ]
        blocks += [
            f"### {game.capitalize()} game, pairs of regions, strengths and blendings",
            _note(results, lookup, two),
            _table(results, columns),
        ]
    return blocks


def _leads(results: Results, lookup: Lookup, game: str) -> str:
    """How far the best method by AUC is ahead of every other on the same plantings."""
    rows = {name: lookup.row("planted", game, "", "auc", name) for name in results.methods}
    means = {name: row.mean for name, row in rows.items() if row is not None and not beside(name)}
    if len(means) < 2:
        return ""
    best = max(means, key=lambda name: means[name])
    moved = f"{game}, moved > {MIN_SCORE_CHANGE:g}"
    columns: list[Column] = []
    for heading, kind, metric in (
        ("AUC", game, "auc"),
        ("top-1", game, "top1"),
        (f"moved > {MIN_SCORE_CHANGE:g}: AUC", moved, "auc"),
        ("top-1", moved, "top1"),
    ):
        ahead = {row.method: row for row in results.leads(best, "planted", kind, metric)}
        columns.append((heading, ahead.get, None))
    text = f"Lead of {code_span(best)} on the same plantings; where an interval lies above 0, it is ahead."
    return f"{text}\n\n{_table(results, columns)}"


def _note(results: Results, lookup: Lookup, kind: str) -> str:
    rows = [r for key, r in lookup.rows.items() if key[:2] == ("planted", kind) and key[3] == "chance"]
    if not rows:
        return ""
    moved = [
        r for key, r in lookup.rows.items() if key[:2] == ("planted", f"{kind}, moved > {MIN_SCORE_CHANGE:g}")
    ]
    both = [
        r.mean
        for key, r in lookup.rows.items()
        if key[:2] == ("planted", kind) and key[3] == "chance of both"
    ]
    text = (
        f"{max(r.number for r in rows)} plantings, of which {max((r.number for r in moved), default=0)} move the "
        f"score by more than {MIN_SCORE_CHANGE:g}. Top-1 by chance: {rows[0].mean:.3f}"
    )
    return text + (f"; both by chance: {both[0]:.3f}." if both else ".")


def _generic(
    results: Results, lookup: Lookup, name: str, title: str, better: Mapping[str, bool]
) -> list[str]:
    blocks = [f"## {markdown_text(title)}"]
    groups = dict.fromkeys((key[1], key[2]) for key in lookup.rows if key[0] == name and key[4] is None)
    for kind, variant in groups:
        metrics = dict.fromkeys(
            key[3] for key in lookup.rows if key[:3] == (name, kind, variant) and key[4] is None
        )
        columns = [
            lookup.column(
                f"{metric}{_arrow(better, metric)}", (name, kind, variant, metric), better.get(metric)
            )
            for metric in metrics
        ]
        heading = ", ".join(text for text in (kind, variant) if text)
        blocks += [f"### {markdown_text(heading)}" if heading else "", _table(results, columns)]
    return blocks


def _costs(results: Results, lookup: Lookup) -> str:
    columns = [
        lookup.column("seconds a face", (COST, "", "", "seconds_per_face"), False),
        lookup.column("CPU seconds a face", (COST, "", "", "cpu_seconds_per_face"), False),
        lookup.column("peak memory, MiB", (COST, "", "", "peak_mib"), False),
        lookup.column("agreement with others", (AGREEMENT, "", "", "with_others"), None),
    ]
    text = (
        "Medians, on this machine, beside whatever else it did; CPU seconds of all threads. Memory is what the "
        "process needed on top, in the first few pairs. Agreement: median rank correlation of a method's maps with "
        "those of each other method."
    )
    return f"## Time, memory, agreement\n\n{text}\n\n{_table(results, columns)}"


def _failures(results: Results) -> str:
    if not results.failures:
        return "No method failed on any pair."
    counts = Counter((f.method or "(pair)", f.protocol, f.error) for f in results.failures)
    lines = [
        f"| {markdown_text(method)} | {markdown_text(protocol)} | {count} | {markdown_text(error[:160])} |"
        for (method, protocol, error), count in counts.most_common(40)
    ]
    head = "| method | protocol | pairs | why |\n|---|---|---|---|\n"
    return f"## Failures\n\n{len(results.failures)} judgements could not be made.\n\n{head}" + "\n".join(
        lines
    )


def _table(results: Results, columns: Sequence[Column]) -> str:
    """A row for each method with anything to show, by the first ranked column."""
    cells = {name: [row(name) for _, row, _ in columns] for name in results.methods}
    shown = [name for name, row in cells.items() if any(row)]
    used = [i for i in range(len(columns)) if any(cells[name][i] for name in shown)]
    if not used:
        return ""
    best = {i: best_mean([cells[n][i] for n in shown if not beside(n)], columns[i][2]) for i in used}
    lines = [
        f"| method | {' | '.join(markdown_text(columns[i][0]) for i in used)} |",
        "|---" * (len(used) + 1) + "|",
    ]
    for name in sorted(shown, key=lambda name: _place(name, cells[name][used[0]], columns[used[0]][2])):
        values = [cell(cells[name][i], best[i]) for i in used]
        lines.append(f"| {label(name)} | {' | '.join(values)} |")
    return "\n".join(lines)


def _place(name: str, row: SummaryRow | None, better: bool | None) -> tuple[bool, float]:
    if row is None:
        return beside(name) is not None, float("inf")
    return beside(name) is not None, {True: -row.mean, False: row.mean, None: 0.0}[better]


def _ranked(better: Mapping[str, bool], metric: str, kind: str) -> bool | None:
    return None if kind == "average map" or kind.endswith("control") else better.get(metric)


def _arrow(better: Mapping[str, bool], metric: str) -> str:
    return "" if metric not in better else " ↑" if better[metric] else " ↓"
