"""Plots of an evaluation: ranks, curves, regions, cost against quality, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xfr_plugin.evaluation.floor_methods import FLOORS
from xfr_plugin.evaluation.planting import PLANTED_REGIONS
from xfr_plugin.evaluation.results import AGREEMENT, Results
from xfr_plugin.evaluation.run import COST
from xfr_plugin.evaluation.summary import MOVED, SummaryRow
from xfr_plugin.files import atomic_path

__all__ = ["draw_plots", "ranked_columns"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's (2008); the first is for the best."""

_SHOWN = len(_COLOURS)

_METRICS = {"auc": "AUC", "top1": "top-1"}

Score = tuple[str, str, str, str]
"""Protocol, slice, variant, metric."""


def draw_plots(results: Results, folder: Path) -> list[Path]:
    """Draw what there is data for, as PNG."""
    best = _by_mean_rank(results)
    figures: dict[str, Figure | None] = {
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
                figure.savefig(temporary, dpi=120, format="png")
            paths.append(folder / name)
    return paths


def ranked_columns(results: Results) -> dict[Score, dict[str, float]]:
    """Means by method of every metric by which methods are ranked; signs turned so that higher is better.

    Of planted pairs only single regions at full strength; of planted evidence AUC and top-1, all and moved.
    """
    columns: dict[Score, dict[str, float]] = {}
    planted = [f"{game}{part}" for game in ("dissimilar", "similar") for part in ("", f", moved > {MOVED:g}")]
    for row in results.summary():
        protocol = results.protocols.get(row.protocol)
        if protocol is None or row.at is not None or row.metric not in protocol.higher_is_better:
            continue
        is_extra = row.slice not in planted or row.metric not in ("auc", "top1") or row.variant != ""
        if is_extra if row.protocol == "planted" else row.slice != "":
            continue
        sign = 1 if protocol.higher_is_better[row.metric] else -1
        where = (row.protocol, row.slice, row.variant, row.metric)
        columns.setdefault(where, {})[row.method] = sign * row.mean
    order = sorted(
        columns, key=lambda where: planted.index(where[1]) if where[0] == "planted" else len(planted)
    )
    return {where: columns[where] for where in order if len(columns[where]) > 1}


def ranking_figure(results: Results) -> Figure | None:
    """Methods × metrics: the mean in the cell, the rank as its colour."""
    columns = ranked_columns(results)
    methods = [*_by_mean_rank(results), *(name for name in results.methods if name in FLOORS)]
    if not columns or len(methods) < 2:
        return None
    ranks, values = np.full((2, len(methods), len(columns)), np.nan)
    signs = [1 if results.protocols[c[0]].higher_is_better[c[3]] else -1 for c in columns]
    for column, means in enumerate(columns.values()):
        ranks[:, column] = _shares([means.get(method, np.nan) for method in methods])
        values[:, column] = [signs[column] * means.get(method, np.nan) for method in methods]
    titles = [_column_title(results, where) for where in columns]
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
    axes.set_yticks(range(len(methods)), [_title(method) for method in methods], fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _lines_between(axes, list(columns), len(methods) - sum(method in FLOORS for method in methods))
    axes.set_xlabel(
        "means; blue: first among the methods, red: last. Methods by mean rank, floors below.", fontsize=8
    )
    return figure


def region_figure(results: Results, best: Sequence[str]) -> Figure | None:
    """Pixel AUC and top-1 by planted region, of the best methods and the floors."""
    rows = {
        (r.slice, r.metric, r.method): r
        for r in results.summary()
        if r.protocol == "planted" and not r.variant
    }
    if not rows:
        return None
    shown = [*best[:_SHOWN], *(name for name in results.methods if name in FLOORS)]
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
                    _colour(method, best),
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


def curve_figure(results: Results, protocol: str, best: Sequence[str]) -> Figure | None:
    """Curves of a protocol, one panel for each variant and metric."""
    curves: dict[tuple[str, str, str], dict[str, list[SummaryRow]]] = {}
    for row in results.summary():
        if row.protocol == protocol and row.at is not None and row.slice == "":
            lines = curves.setdefault((row.slice, row.variant, row.metric), {})
            lines.setdefault(row.method, []).append(row)
    if not curves:
        return None
    across = min(4, len(curves))
    down = -(-len(curves) // across)
    figure = Figure(figsize=(max(5.5, 3.9 * across), 3.2 * down + 0.8), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (key, lines) in zip(panels, curves.items(), strict=False):
        for method in sorted(lines, key=lambda name: (name in best[:_SHOWN], name in FLOORS)):
            _curve(axes, lines[method], method, best)
        axes.set_title(", ".join(text for text in key[:2] if text), fontsize=9)
        axes.set_ylabel(key[2].replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    _legend(figure, results, best)
    return figure


def cost_figure(results: Results, best: Sequence[str]) -> Figure | None:
    """Seconds a face against quality: planted evidence, both games, or the share of methods beaten."""
    seconds = {
        r.method: r for r in results.summary() if r.protocol == COST and r.metric == "seconds_per_face"
    }
    quality, label = _quality(results)
    shown = [method for method in quality if method in seconds and method not in FLOORS]
    if not shown:
        return None
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for method in shown:
        mean, low, high = quality[method]
        colour = _colour(method, best)
        axes.errorbar(
            seconds[method].mean, mean, yerr=[[mean - low], [high - mean]], color=colour, fmt="o", ms=6, lw=1
        )
    for floor in (name for name in quality if name in FLOORS):
        axes.axhline(quality[floor][0], color="black", lw=0.8, ls="--" if floor == "floor_centre" else ":")
        axes.annotate(_title(floor), (1, quality[floor][0]), xycoords=("axes fraction", "data"), ha="right",
                      va="bottom", fontsize=8, color="0.3")  # fmt: skip
    axes.set_xlabel("seconds a face (median, on this machine)")
    axes.set_ylabel(label)
    axes.margins(x=0.12, y=0.08)
    axes.grid(color="0.92", which="major")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _place_labels(figure, axes, [(m, seconds[m].mean, quality[m][0]) for m in shown])
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


def _by_mean_rank(results: Results) -> list[str]:
    """Methods, best first, by their mean rank over all ranked metrics."""
    columns = ranked_columns(results)
    methods = [name for name in results.methods if name not in FLOORS]
    shares = [_shares([means.get(method, np.nan) for method in methods]) for means in columns.values()]
    if not shares or not methods:
        return methods
    known = np.array(shares)
    counts = np.isfinite(known).sum(axis=0)
    score = np.nansum(known, axis=0) / np.maximum(counts, 1)
    return [methods[i] for i in np.argsort(-np.where(counts, score, -1), kind="stable")]


def _shares(values: Sequence[float]) -> NDArray[np.float64]:
    """Share of the others that each value beats (ties: half); NaN stays."""
    array = np.array(values)
    known = np.isfinite(array)
    beaten = (
        (array[:, None] > array[None, :]).sum(axis=1)
        + 0.5 * (array[:, None] == array[None, :]).sum(axis=1)
        - 0.5
    )
    shares: NDArray[np.float64] = np.where(known, beaten / max(1, known.sum() - 1), np.nan)
    return shares


def _quality(results: Results) -> tuple[dict[str, tuple[float, float, float]], str]:
    """Mean and interval by method, and what it is."""
    rows: dict[str, list[SummaryRow]] = {}
    for row in results.summary():
        if (row.protocol, row.variant, row.metric) == ("planted", "", "auc") and row.slice in (
            "dissimilar",
            "similar",
        ):
            rows.setdefault(row.method, []).append(row)
    if rows:
        half = {
            m: np.sqrt(sum(((r.high - r.low) / 2) ** 2 for r in found)) / len(found)
            for m, found in rows.items()
        }
        mean = {m: float(np.mean([r.mean for r in found])) for m, found in rows.items()}
        label = "planted evidence: pixel AUC in the face, mean of both games"
        return {m: (mean[m], mean[m] - half[m], mean[m] + half[m]) for m in rows}, label
    columns = ranked_columns(results)
    shares = {
        m: np.nanmean(share) if np.isfinite(share).any() else np.nan
        for m, share in zip(
            results.methods,
            np.array(
                [_shares([means.get(m, np.nan) for m in results.methods]) for means in columns.values()]
            ).T,
            strict=False,
        )
    }
    return {
        m: (v, v, v) for m, v in shares.items() if np.isfinite(v)
    }, "share of methods beaten, mean over metrics"


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
        label=_title(method),
        error_kw={"lw": 0.7, "ecolor": "0.25"},
    )


def _curve(axes: Axes, rows: Sequence[SummaryRow], method: str, best: Sequence[str]) -> None:
    ordered = sorted(rows, key=lambda row: row.at or 0.0)
    places = np.array([row.at for row in ordered], dtype=float)
    is_shown = method in best[:_SHOWN]
    style: dict[str, Any] = {"color": _colour(method, best), "lw": 1.8 if is_shown else 0.9}
    if method in FLOORS:
        style["ls"] = "--" if method == "floor_centre" else ":"
    axes.plot(places, [row.mean for row in ordered], label=_title(method), **style)
    if is_shown:
        axes.fill_between(
            places, [r.low for r in ordered], [r.high for r in ordered], color=style["color"], alpha=0.1, lw=0
        )


def _legend(figure: Figure, results: Results, best: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_COLOURS[i], lw=2, label=name) for i, name in enumerate(best[:_SHOWN])]
    if len(best) > _SHOWN:
        handles.append(Line2D([], [], color="0.75", lw=1, label="other methods"))
    handles += [
        Line2D([], [], color="black", lw=1, ls="--" if name == "floor_centre" else ":", label=_title(name))
        for name in results.methods
        if name in FLOORS
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(9, len(handles)), fontsize=8, frameon=False
    )


def _place_labels(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Name points where there is room."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    dots = [axes.transData.transform((x, y)) for _, x, y in points]
    taken: list[Any] = []
    for name, x, y in points:
        choices = []
        for radius in (7, 14, 22, 32, 44):
            for angle in (0, 180, 60, 120, 240, 300, 90, 270):
                dx, dy = radius * np.cos(np.radians(angle)), radius * np.sin(np.radians(angle))
                label = axes.annotate(
                    name, (x, y), (dx, dy), textcoords="offset points", fontsize=8, va="center",
                    ha="left" if dx > 3 else "right" if dx < -3 else "center",
                    arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.6"} if radius > 14 else None,
                )  # fmt: skip
                box = label.get_window_extent(renderer)
                clashes = sum(box.overlaps(other) for other in taken) + sum(
                    box.contains(*dot) for dot in dots
                )
                outside = not axes.bbox.contains(*box.min) or not axes.bbox.contains(*box.max)
                label.remove()
                choices.append((clashes + outside, len(choices), dx, dy, radius, box))
                if clashes + outside == 0:
                    break
            if choices[-1][0] == 0:
                break
        _, _, dx, dy, radius, box = min(choices, key=lambda choice: choice[:2])
        axes.annotate(
            name, (x, y), (dx, dy), textcoords="offset points", fontsize=8, va="center",
            ha="left" if dx > 3 else "right" if dx < -3 else "center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.6"} if radius > 14 else None,
        )  # fmt: skip
        taken.append(box)


def _lines_between(axes: Axes, columns: Sequence[Score], methods: int) -> None:
    """White lines between protocols, and above the floors."""
    for place, (before, after) in enumerate(pairwise(columns)):
        if before[0] != after[0]:
            axes.axvline(place + 0.5, color="white", lw=3)
    axes.axhline(methods - 0.5, color="white", lw=4)


def _column_title(results: Results, where: Score) -> str:
    protocol, part, variant, metric = where
    arrow = "↑" if results.protocols[protocol].higher_is_better[metric] else "↓"
    return (
        ", ".join(
            text for text in (protocol, part, variant, _METRICS.get(metric, metric.replace("_", " "))) if text
        )
        + f" {arrow}"
    )


def _title(method: str) -> str:
    return FLOORS[method].title.removeprefix("Floor: ").capitalize() if method in FLOORS else method


def _colour(method: str, best: Sequence[str]) -> str:
    if method in FLOORS:
        return "0.35" if method == "floor_centre" else "0.65"
    place = list(best).index(method) if method in best else _SHOWN
    return _COLOURS[place] if place < _SHOWN else "0.75"
