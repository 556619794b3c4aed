"""Curves of the protocols, and cost against quality."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from xfr_plugin.attr.registry import METHODS
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.report.cells import Lookup
from xfr_plugin.evaluation.report.judged import Judged
from xfr_plugin.evaluation.report.style import (
    MARKERS,
    SHOWN,
    method_colour,
    method_title,
    ranked_columns,
    shares_beaten,
)
from xfr_plugin.evaluation.results import Results
from xfr_plugin.evaluation.summary import SummaryRow
from xfr_plugin.evaluation.work import COST
from xfr_plugin.explanation.figures.lettering import COLOURS

__all__ = ["cost_figure", "curve_figure"]


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
        for method in sorted(lines, key=lambda name: (name in best[:SHOWN], beside(name) is not None)):
            _curve(axes, lines[method], method, best)
        axes.set_title(", ".join(text for text in key[:2] if text), fontsize=9)
        axes.set_xlabel(results.protocols[protocol].along, fontsize=8)
        axes.set_ylabel(key[2].replace("_", " "), fontsize=8)
        if key[2] == "correct":  # a share, which may be 1 everywhere
            axes.set_ylim(-0.03, 1.03)
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    _legend(figure, {name for lines in curves.values() for name in lines}, best)
    return figure


def cost_figure(results: Results, best: Sequence[str]) -> Figure | None:
    """Seconds a face against quality: the worst judge, planted evidence, both games, or the share of methods beaten.

    On a CPU, CPU seconds of all threads, which other work of the machine hardly changes.
    """
    on_cpu = results.manifest.recognizer["device"] == "cpu"
    metric = "cpu_seconds_per_face" if on_cpu else "seconds_per_face"
    seconds = {r.method: r for r in results.summary() if r.protocol == COST and r.metric == metric}
    quality, label = _quality(results)
    shown = [method for method in quality if method in seconds and not beside(method)]
    if not shown:
        return None
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    places = [seconds[method].mean for method in shown]
    # before drawing, since one place alone has no limits of its own
    axes.set_xlim(min(places) / 1.8, max(places) * 1.8)
    for method in shown:
        mean, low, high = quality[method]
        colour = method_colour(method, best)
        axes.errorbar(
            seconds[method].mean, mean, yerr=[[mean - low], [high - mean]], color=colour, fmt="o", ms=6, lw=1
        )
    for name in [name for name in quality if beside(name)]:
        axes.axhline(quality[name][0], color="black", lw=0.8, ls="--" if name == "chance_centre" else ":")
        axes.annotate(method_title(name), (1, quality[name][0]), xycoords=("axes fraction", "data"), ha="right",
                      va="bottom", fontsize=8, color="0.3")  # fmt: skip
    axes.set_xlabel(f"{'CPU ' if on_cpu else ''}seconds a face (median, on this machine)")
    axes.set_ylabel(label)
    axes.margins(y=0.08)
    axes.grid(color="0.92", which="major")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _place_labels(figure, axes, [(m, seconds[m].mean, quality[m][0]) for m in shown])
    return figure


def _quality(results: Results) -> tuple[dict[str, tuple[float, float, float]], str]:
    """Mean and interval by method, and what it is."""
    judged = Judged(results.methods, Lookup(results))
    if len(judged.judges) > 1:
        worst = {name: (s.value, s.low, s.high) for name, s in judged.worst.items() if s and name in METHODS}
        return worst, "worst judge: share of the way from chance to the ceiling"
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
                [shares_beaten([means.get(m, np.nan) for m in results.methods]) for means in columns.values()]
            ).T,
            strict=False,
        )
    }
    return {
        m: (v, v, v) for m, v in shares.items() if np.isfinite(v)
    }, "share of methods beaten, mean over metrics"


def _curve(axes: Axes, rows: Sequence[SummaryRow], method: str, best: Sequence[str]) -> None:
    ordered = sorted(rows, key=lambda row: row.at or 0.0)
    places = np.array([row.at for row in ordered], dtype=float)
    is_shown = method in best[:SHOWN]
    style: dict[str, Any] = {"color": method_colour(method, best), "lw": 1.8 if is_shown else 0.9}
    if beside(method):
        style["ls"] = "--" if method == "chance_centre" else ":"
    if is_shown:
        style |= {"marker": MARKERS[best.index(method)], "ms": 4.5, "markevery": max(1, len(places) // 8)}
    axes.plot(places, [row.mean for row in ordered], label=method_title(method), **style)
    if is_shown:
        axes.fill_between(
            places, [r.low for r in ordered], [r.high for r in ordered], color=style["color"], alpha=0.1, lw=0
        )


def _legend(figure: Figure, drawn: Set[str], best: Sequence[str]) -> None:
    """Names of the best, and of the chance baselines that have curves."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[i], marker=MARKERS[i], ms=5, lw=2, label=name)
        for i, name in enumerate(best[:SHOWN])
    ]
    if len(best) > SHOWN:
        handles.append(Line2D([], [], color="0.75", lw=1, label="other methods"))
    handles += [
        Line2D(
            [], [], color="black", lw=1, ls="--" if name == "chance_centre" else ":", label=method_title(name)
        )
        for name in sorted(drawn)
        if beside(name)
    ]
    across = min(len(handles), max(3, int(1.6 * figure.get_size_inches()[0] / 2)))
    figure.legend(handles=handles, loc="outside lower center", ncols=across, fontsize=8, frameon=False)


def _place_labels(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Name points where there is room."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # Matplotlib types a part of itself
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]  # as above
    dots = [axes.transData.transform((x, y)) for _, x, y in points]
    halo = withStroke(linewidth=2.5, foreground="white")  # over lines and whiskers
    taken: list[Any] = []
    for name, x, y in points:
        choices: list[tuple[float, int, float, float, int, Any]] = []
        for radius in (7, 14, 22, 32, 44):
            for angle in (0, 180, 60, 120, 240, 300, 90, 270):
                dx, dy = radius * np.cos(np.radians(angle)), radius * np.sin(np.radians(angle))
                label = axes.annotate(
                    name, (x, y), (dx, dy), textcoords="offset points", fontsize=8, va="center", parse_math=False,
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
            name, (x, y), (dx, dy), textcoords="offset points", fontsize=8, va="center", parse_math=False,
            ha="left" if dx > 3 else "right" if dx < -3 else "center", path_effects=[halo],
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.6"} if radius > 14 else None,
        )  # fmt: skip
        taken.append(box)
