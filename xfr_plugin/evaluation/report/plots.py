"""Plots of an evaluation: ranks, regions, agreement; and all of them as files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xfr_plugin.base.files import atomic_path
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.report.curves import cost_figure, curve_figure
from xfr_plugin.evaluation.report.judges_figure import judges_figure
from xfr_plugin.evaluation.report.style import (
    SHOWN,
    Score,
    by_mean_rank,
    column_title,
    method_colour,
    method_title,
    ranked_columns,
    shares_beaten,
)
from xfr_plugin.evaluation.results import AGREEMENT, Results
from xfr_plugin.evaluation.summary import SummaryRow
from xfr_plugin.explanation.figures.lettering import as_written
from xfr_plugin.swaps.planting import PLANTED_REGIONS

__all__ = ["agreement_figure", "draw_plots", "ranking_figure", "region_figure"]


def draw_plots(results: Results, folder: Path) -> list[Path]:
    """Draw what there is data for, as PNG."""
    best = by_mean_rank(results)
    figures: dict[str, Figure | None] = {
        "judges.png": judges_figure(results),
        "ranking.png": ranking_figure(results),
        "planted_regions.png": region_figure(results, best),
        "cost_quality.png": cost_figure(results, best),
        "agreement.png": agreement_figure(results),
    }
    for protocol in results.protocols:
        figures[f"curves_{protocol}.png"] = curve_figure(results, protocol, best)
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            with atomic_path(folder / name) as temporary:
                as_written(figure).savefig(temporary, dpi=120, format="png")
            paths.append(folder / name)
    return paths


def ranking_figure(results: Results) -> Figure | None:
    """Methods × metrics: the mean in the cell, the rank as its colour."""
    columns = ranked_columns(results)
    methods = [*by_mean_rank(results), *(name for name in results.methods if beside(name))]
    if not columns or len(methods) < 2:
        return None
    ranks, values = np.full((2, len(methods), len(columns)), np.nan)
    signs = [1 if results.protocols[c[0]].higher_is_better[c[3]] else -1 for c in columns]
    for column, means in enumerate(columns.values()):
        ranks[:, column] = shares_beaten([means.get(method, np.nan) for method in methods])
        values[:, column] = [signs[column] * means.get(method, np.nan) for method in methods]
    titles = [column_title(results, where) for where in columns]
    depth = 0.062 * max(map(len, titles))
    width, height = 2.6 + 0.62 * len(columns), 1.0 + depth + 0.3 * len(methods)
    figure = Figure(figsize=(max(width, 6.5), height), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(ranks, cmap="RdYlBu", vmin=0, vmax=1, aspect="auto", alpha=0.85)
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        text = f"{values[row, column]:.2f}".replace("0.", ".", 1)
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5)
    axes.set_xticks(range(len(columns)), titles, rotation=90, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(methods)), [method_title(method) for method in methods], fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _lines_between(axes, list(columns), len(methods) - sum(beside(method) is not None for method in methods))
    axes.set_xlabel(
        "means; blue: first among the methods, red: last. Methods by mean rank, chance below.", fontsize=8
    )
    return figure


def region_figure(results: Results, best: Sequence[str]) -> Figure | None:
    """Pixel AUC and top-1 by planted region, of the best methods and the chance baselines."""
    rows = {
        (r.slice, r.metric, r.method): r
        for r in results.summary()
        if r.protocol == "planted" and not r.variant
    }
    if not rows:
        return None
    shown = [*best[:SHOWN], *(name for name in results.methods if beside(name))]
    figure = Figure(figsize=(14, 7.6), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row", sharex=True)
    for line, (metric, title) in enumerate((("auc", "pixel AUC in the face"), ("top1", "top-1"))):
        for side, game in enumerate(("dissimilar", "similar")):
            axes = grid[line, side]
            for place, method in enumerate(shown):
                found = [rows.get((f"{game}: {region}", metric, method)) for region in PLANTED_REGIONS]
                _bars(
                    axes,
                    found,
                    (place + 0.5) / len(shown) - 0.5,
                    0.8 / len(shown),
                    method,
                    method_colour(method, best),
                )
            axes.axhline(0.5 if metric == "auc" else 1 / len(PLANTED_REGIONS), color="black", lw=0.8, ls=":")
            axes.set_xticks(range(len(PLANTED_REGIONS)), PLANTED_REGIONS)
            axes.set_ylim(0, 1)
            axes.set_xlim(-0.6, len(PLANTED_REGIONS) - 0.4)
            axes.grid(axis="y", color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{game} game: {title}", fontsize=10)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), fontsize=9, frameon=False)
    return figure


def agreement_figure(results: Results) -> Figure | None:
    """Mean rank correlation between the maps of every two methods."""
    found = {
        (r.method, r.variant): r.mean
        for r in results.summary()
        if r.protocol == AGREEMENT and r.metric == "rank_correlation"
    }
    methods = [name for name in results.methods if any(name in key for key in found)]
    if len(methods) < 2:
        return None
    table = np.eye(len(methods))
    for (first, second), mean in found.items():
        i, j = methods.index(first), methods.index(second)
        table[i, j] = table[j, i] = mean
    side = 2.6 + 0.42 * len(methods)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(table, cmap="RdBu", vmin=-1, vmax=1)
    for i, j in np.ndindex(table.shape):
        colour = "white" if abs(table[i, j]) > 0.6 else "black"
        text = f"{table[i, j]:.2f}".replace("0.", ".", 1)
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(methods)), methods, rotation=90, fontsize=8)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.tick_params(length=0)
    axes.set_title("rank correlation of maps, mean over pairs", fontsize=10)
    return figure


def _bars(
    axes: Axes, rows: Sequence[SummaryRow | None], shift: float, width: float, method: str, colour: str
) -> None:
    places = [i + 0.85 * shift for i, row in enumerate(rows) if row is not None]
    known = [row for row in rows if row is not None]
    means = [row.mean for row in known]
    errors = np.array([[row.mean - row.low, row.high - row.mean] for row in known]).reshape(-1, 2).T
    axes.bar(
        places,
        means,
        width,
        yerr=errors,
        color=colour,
        label=method_title(method),
        error_kw={"lw": 0.7, "ecolor": "0.25"},
    )


def _lines_between(axes: Axes, columns: Sequence[Score], methods: int) -> None:
    """White lines between protocols, and above the chance baselines."""
    for place, (before, after) in enumerate(pairwise(columns)):
        if before[0] != after[0]:
            axes.axvline(place + 0.5, color="white", lw=3)
    axes.axhline(methods - 0.5, color="white", lw=4)
