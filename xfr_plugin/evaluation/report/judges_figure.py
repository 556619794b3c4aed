"""Methods × judges as a picture: how far of the way from chance to the ceiling each comes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.report.cells import Lookup
from xfr_plugin.evaluation.report.judged import Judged
from xfr_plugin.evaluation.report.style import method_title
from xfr_plugin.evaluation.results import Results
from xfr_plugin.evaluation.work import COST
from xfr_plugin.explanation.figures.lettering import ink_on

__all__ = ["judges_figure"]


def judges_figure(results: Results) -> Figure | None:
    """A row for each method, by its worst judge, which is framed, and a column for each judge that ranks anybody.

    None of fewer than two judges or methods.
    """
    judged = Judged(results.methods, Lookup(results))
    judges = [judge for judge in judged.judges if any(judged.share(judge, name) for name in judged.names)]
    names = [name for name in judged.names if any(judged.share(judge, name) for judge in judges)]
    if len(judges) < 2 or len(names) < 2:
        return None
    table = np.full((len(names), len(judges)), np.nan)
    for row, column in np.ndindex(table.shape):
        share = judged.share(judges[column], names[row])
        table[row, column] = share.value if share else np.nan
    figure = Figure(figsize=(3.4 + 0.52 * table.shape[1], 2.3 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(np.isfinite(table)), strict=True):
        value = round(float(table[row, column]), 2) + 0.0  # no -0
        text = f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink_on(drawn, value))
        worst = judged.worst[names[row]]
        if worst and not beside(names[row]) and worst.judge == judges[column].heading:
            axes.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, lw=1.6, zorder=3))
    axes.set_xticks(
        range(table.shape[1]),
        [judge.heading for judge in judges],
        rotation=55,
        ha="left",
        fontsize=8.5,
    )
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), [_title(judged, name) for name in names], fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for place, (before, after) in enumerate(pairwise(judges)):
        if before.group != after.group:
            axes.axvline(place + 0.5, color="white", lw=4)
    axes.axhline(len([name for name in names if not beside(name)]) - 0.5, color="white", lw=5)
    axes.set_xlabel(
        "0: chance, 1: the ceiling. Framed: the judge by which a method is placed. Seconds a face.",
        fontsize=8.5,
    )
    return figure


def _title(judged: Judged, name: str) -> str:
    cost = judged.lookup.row(COST, "", "", "seconds_per_face", name)
    price = f"  {cost.mean:.2g} s" if cost and not beside(name) else ""
    return method_title(name) + price
