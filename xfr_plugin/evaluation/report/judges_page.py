"""The page of all judges: methods by their worst judge, what each judge says, and how far each aim is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xfr_plugin.attr.registry import METHODS
from xfr_plugin.base.text import code_span, markdown_text
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.report.aims import aims_table
from xfr_plugin.evaluation.report.cells import Lookup, best_mean, cell, interval, label
from xfr_plugin.evaluation.report.heading import what_was_run
from xfr_plugin.evaluation.report.judged import Judged, Share, worst_share
from xfr_plugin.evaluation.report.judges import Judge
from xfr_plugin.evaluation.results import Results
from xfr_plugin.evaluation.work import COST

__all__ = ["judges_page", "judges_table"]


def judges_page(results: Results, plots: Sequence[str]) -> str | None:
    """The page in Markdown, with its picture if that is among the plots; None of fewer than two judges."""
    lookup = Lookup(results)
    table = judges_table(results, lookup)
    if not table:
        return None
    title = f"# {code_span(str(results.manifest.recognizer['name']))} by all judges"
    picture = ["![methods by judges: how far each comes from chance to the ceiling](judges.png)"]
    shown = picture if "judges.png" in plots else []
    blocks = [title, what_was_run(results), *table[:2], *shown, *table[2:], *aims_table(results, lookup)]
    return "\n\n".join(blocks) + "\n"


def judges_table(results: Results, lookup: Lookup) -> list[str]:
    """A row for each method, by its worst judge, then what each judge says; nothing of fewer than two judges."""
    judged = Judged(results.methods, lookup)
    if len(judged.judges) < 2:
        return []
    groups: dict[str, list[Judge]] = {}
    for judge in judged.judges:
        groups.setdefault(judge.group, []).append(judge)
    blocks = [_TEXT, _overview(judged, groups)]
    for group, judges in groups.items():
        notes = [f"- **{judge.heading}**: {judge.asks}" for judge in judges]
        blocks += [f"## {group.capitalize()}", "\n".join(notes), _details(judged, judges)]
    return blocks


_TEXT = (
    "Methods by their worst judge: how far of the way from chance (AUC .5, correlation 0; of controls, AUC 1) to the "
    "ceiling (AUC 1, of controls .5; of correlations the noise ceiling) they come there. Of removal, chance is the "
    "random map, and the best method the ceiling. Where ceiling and chance are not apart, a judge ranks nobody. "
    "Under each question stands its worst judge. Rows beside the methods are not ranked. No method may be trained, "
    "tuned or chosen by a judge."
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
    best = [best_mean([judged.row(judge, name) for name in ranked], judge.rises) for judge in judges]
    lines = [("method", *(judge.heading for judge in judges))]
    for name in judged.names:
        rows = [judged.row(judge, name) for judge in judges]
        if any(rows):
            lines.append((label(name), *map(cell, rows, best)))
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


def _share_cell(share: Share | None, name: str) -> str:
    if share is None or beside(name):
        return "–"
    return f"{share.value:.2f} ({interval(share.low, share.high, 2)}), {markdown_text(share.judge)}"
