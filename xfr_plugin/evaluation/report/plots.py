"""Plots of an evaluation: ranks, regions, agreement; and all of them as files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

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
from xfr_plugin.explanation.figures.lettering import HATCHES, as_written, ink_on
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
    """Methods × metrics: the mean in the cell, the rank as its shade."""
    columns = ranked_columns(results)
    methods = [*by_mean_rank(results), *(name for name in results.methods if beside(name))]
    if not columns or len(methods) < 2:
        return None
    ranks, values = np.full((2, len(methods), len(columns)), np.nan)
    signs = [1 if results.protocols[c[0]].higher_is_better[c[3]] else -1 for c in columns]
    for column, means in enumerate(columns.values()):
        ranks[:, column] = shares_beaten([means.get(method, np.nan) for method in methods])
        values[:, column] = [signs[column] * means.get(method, np.nan) for method in methods]
    known = np.isfinite(values).any(axis=1)
    ranks, values = ranks[known], values[known]
    methods = [method for method, is_known in zip(methods, known, strict=True) if is_known]
    titles = [column_title(results, where) for where in columns]
    depth = 0.062 * max(map(len, titles))
    width, height = 2.6 + 0.62 * len(columns), 1.0 + depth + 0.3 * len(methods)
    figure = Figure(figsize=(max(width, 6.5), height), layout="constrained")
    axes = figure.add_subplot()
    _draw_table(axes, ranks, values, "Blues", (0, 1))
    axes.set_xticks(range(len(columns)), titles, rotation=90, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(methods)), [method_title(method) for method in methods], fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _lines_between(axes, list(columns), len(methods) - sum(beside(method) is not None for method in methods))
    axes.set_xlabel(
        "means; the darker, the more of the others are beaten. Methods by mean rank, chance below.",
        fontsize=8,
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
    judged = {method for _, _, method in rows}
    shown = [*best[:SHOWN], *(name for name in results.methods if beside(name) and name in judged)]
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
                    HATCHES[place] if place < len(best[:SHOWN]) else "",
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
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(8, len(shown)), fontsize=9, frameon=False
    )
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
    _draw_table(axes, table, table, "cividis", (-1, 1))
    axes.set_xticks(range(len(methods)), methods, rotation=90, fontsize=8)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.tick_params(length=0)
    axes.set_title("rank correlation of maps, mean over pairs", fontsize=10)
    return figure


def _draw_table(
    axes: Axes,
    shades: NDArray[np.float64],
    values: NDArray[np.float64],
    colours: str,
    ends: tuple[float, float],
) -> None:
    """Numbers on grounds from light to dark, which can be told apart without colours; NaN is left white."""
    drawn = axes.imshow(shades, cmap=colours, vmin=ends[0], vmax=ends[1], aspect="auto")
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        text = f"{values[row, column]:.2f}".replace("0.", ".", 1).replace("-", "−")
        ink = ink_on(drawn, shades[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink)


def _bars(
    axes: Axes,
    rows: Sequence[SummaryRow | None],
    shift: float,
    width: float,
    method: str,
    colour: str,
    hatch: str,
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
        hatch=hatch,
        edgecolor="white",
        lw=0,
        label=method_title(method),
        error_kw={"lw": 0.7, "ecolor": "0.25"},
    )


def _lines_between(axes: Axes, columns: Sequence[Score], methods: int) -> None:
    """White lines between protocols, and above the chance baselines."""
    for place, (before, after) in enumerate(pairwise(columns)):
        if before[0] != after[0]:
            axes.axvline(place + 0.5, color="white", lw=3)
    axes.axhline(methods - 0.5, color="white", lw=4)
