"""A summary to look at: plots of regions by group, and a page with the most telling pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from xfr_plugin.base.files import atomic_path, write_text
from xfr_plugin.base.text import counted
from xfr_plugin.bulk.store import KINDS
from xfr_plugin.bulk.words import LEGEND, decided_in_words, explained_in_words
from xfr_plugin.errors import ResultError
from xfr_plugin.explanation.figures.lettering import COLOURS, HATCHES, as_written
from xfr_plugin.explanation.words import component_name

if TYPE_CHECKING:
    from xfr_plugin.bulk.summary import RegionRow, Summary, TellingPair

__all__ = ["draw_plots", "region_figure", "write_page"]

_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left}"
)


def draw_plots(summary: Summary, folder: Path) -> list[Path]:
    """Net evidence by region, a picture for each method and kind of group, as PNG."""
    kinds = dict.fromkeys((row.method, row.by) for row in summary.regions if row.by != "all")
    paths = []
    for method, by in kinds:
        rows = [row for row in summary.regions if (row.method, row.by) == (method, by)]
        path = folder / f"regions-{method}-{by if by in KINDS else 'group'}.png"  # a column may have any name
        with atomic_path(path) as temporary:
            as_written(region_figure(rows)).savefig(temporary, dpi=110, format="png")
        paths.append(path)
    return paths


def region_figure(rows: Sequence[RegionRow]) -> Figure:
    """Regions by what they argue in each group, with intervals."""
    regions = list(dict.fromkeys(row.region for row in rows))
    sizes = {row.group: row.pairs for row in rows}
    largest = sorted(sizes, key=lambda group: -sizes[group])[: len(COLOURS)]
    groups = [group for group in sizes if group in largest]
    figure = Figure(figsize=(8, 1.5 + 0.34 * len(regions)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(groups)
    for number, group in enumerate(groups):
        own = {row.region: row for row in rows if row.group == group}
        shares = np.array([own[region].share for region in regions])
        ends = np.array([[own[region].low, own[region].high] for region in regions], dtype=float).T
        axes.barh(
            np.arange(len(regions)) - 0.4 + (number + 0.5) * height,
            shares,
            height,
            xerr=np.abs(ends - shares),
            color=COLOURS[number],
            hatch=HATCHES[number],
            edgecolor="white",
            lw=0,
            error_kw={"lw": 1.1, "ecolor": "black"},
            label=_label(sizes[group], group, np.isnan(ends).any()),
        )
    axes.set_yticks(range(len(regions)), list(map(component_name, regions)))
    axes.invert_yaxis()
    axes.axvline(0, color="#555", lw=0.8)
    axes.set_xlabel(
        "net evidence, % of all in the pair, mean and 95 % interval; right of 0 argues for a match"
    )
    which = f", the {len(groups)} largest of {len(sizes)} groups" if len(groups) < len(sizes) else ""
    axes.set_title(f"{rows[0].method}, by {rows[0].by}{which}")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _label(pairs: int, group: str, is_alone: bool) -> str:
    """A name that begins with _ would not be shown, if it came first."""
    return f"{counted(pairs, 'pair')}: {group}{' (too few people for an interval)' if is_alone else ''}"


def write_page(summary: Summary, folder: Path, plots: Sequence[Path]) -> Path:
    """Write `index.html` with the plots and the telling pairs; their pictures go beside it."""
    manifest = summary.results.manifest
    title = f"{counted(manifest.pairs, 'pair')}, {escape(manifest.recognizer)}"
    by_pair: dict[int, list[TellingPair]] = {}
    for pair in summary.telling:
        by_pair.setdefault(pair.pair, []).append(pair)
    parts = [
        f"<h1>{title}</h1>",
        *_paragraphs(decided_in_words(summary.decided, manifest)),
        *(part for name in summary.verdicts for part in _paragraphs(explained_in_words(summary, name))),
        "<h2>Which regions argue</h2>",
        *_paragraphs([LEGEND]),
        *(_image(plot.name, plot.stem.replace("-", " ")) for plot in plots),
        "<h2>Pairs worth a look</h2>",
        *(_pair(summary, pairs, folder) for pairs in by_pair.values()),
    ]
    path = folder / "index.html"
    head = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    )
    write_text(path, "\n".join([head, *parts, "</html>"]))
    return path


def _pair(summary: Summary, by_method: Sequence[TellingPair], folder: Path) -> str:
    """A pair, and its pictures by the methods for which it is telling."""
    pair = by_method[0]
    words = (
        f"<h3>Pair {pair.pair}: score {pair.score:.3f}, {abs(pair.margin):.3f} "
        f"{'above' if pair.margin >= 0 else 'below'} the threshold</h3>"
        f"<p>Probe {escape(pair.probe)}, reference {escape(pair.reference)}</p>"
    )
    return words + "".join(_explained(summary, one, folder) for one in by_method)


def _explained(summary: Summary, pair: TellingPair, folder: Path) -> str:
    (words,) = _paragraphs([f"{pair.method}: {pair.why}"])
    try:
        explanation = summary.results.explanation(pair.pair, pair.method)
    except ResultError:  # the run kept no maps
        return words
    picture, _ = explanation.save(folder, f"pair-{pair.pair:06d}-{pair.method}")
    return words + _image(os.path.basename(picture), pair.why)


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [f"<p>{escape(line)}</p>" for line in lines]


def _image(name: str, words: str) -> str:
    return f'<p><img loading="lazy" src="{escape(name)}" alt="{escape(words)}"></p>'
