"""Which metrics rank methods, in which order methods are shown, and their names and colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.results import Results
from xfr_plugin.explanation.figures.lettering import COLOURS
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE

__all__ = [
    "MARKERS",
    "SHOWN",
    "Score",
    "by_mean_rank",
    "column_title",
    "method_colour",
    "method_title",
    "ranked_columns",
    "shares_beaten",
]

MARKERS = "os^DvP"
"""What tells curves of the same colours apart where there are none."""

SHOWN = len(COLOURS)

_METRICS = {"auc": "AUC", "top1": "top-1"}

Score = tuple[str, str, str, str]
"""Protocol, slice, variant, metric."""


def ranked_columns(results: Results) -> dict[Score, dict[str, float]]:
    """Means by method of every metric by which methods are ranked; signs turned so that higher is better.

    Of planted pairs only single regions at full strength; of planted evidence AUC and top-1, all and moved.
    """
    columns: dict[Score, dict[str, float]] = {}
    pooled = {(row.protocol, row.metric) for row in results.summary() if row.variant == ""}
    planted = [
        f"{game}{kind}"
        for game in ("dissimilar", "similar")
        for kind in ("", f", moved > {MIN_SCORE_CHANGE:g}")
    ]
    for row in results.summary():
        protocol = results.protocols.get(row.protocol)
        if protocol is None or row.at is not None or row.metric not in protocol.higher_is_better:
            continue
        is_extra = row.slice not in planted or row.metric not in ("auc", "top1") or row.variant != ""
        if is_extra if row.protocol == "planted" else row.slice != "":
            continue
        if row.variant and (row.protocol, row.metric) in pooled:  # a part of what is shown anyway
            continue
        sign = 1 if protocol.higher_is_better[row.metric] else -1
        where = (row.protocol, row.slice, row.variant, row.metric)
        columns.setdefault(where, {})[row.method] = sign * row.mean
    order = sorted(
        columns, key=lambda where: planted.index(where[1]) if where[0] == "planted" else len(planted)
    )
    return {where: columns[where] for where in order if len(columns[where]) > 1}


def by_mean_rank(results: Results) -> list[str]:
    """Methods, best first, by their mean rank over all ranked metrics."""
    columns = ranked_columns(results)
    methods = [name for name in results.methods if not beside(name)]
    shares = [shares_beaten([means.get(method, np.nan) for method in methods]) for means in columns.values()]
    if not shares or not methods:
        return methods
    known = np.array(shares)
    counts = np.isfinite(known).sum(axis=0)
    score = np.nansum(known, axis=0) / np.maximum(counts, 1)
    return [methods[i] for i in np.argsort(-np.where(counts, score, -1), kind="stable")]


def shares_beaten(values: Sequence[float]) -> NDArray[np.float64]:
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


def method_title(method: str) -> str:
    """Name of a method; of a chance baseline, what it is."""
    title = beside(method)
    return title.removeprefix("Chance: ").capitalize() if title else method


def method_colour(method: str, best: Sequence[str]) -> str:
    """Colours for the best methods, greys for chance baselines and for the rest."""
    if beside(method):
        return "0.35" if method == "chance_centre" else "0.65"
    place = list(best).index(method) if method in best else SHOWN
    return COLOURS[place] if place < SHOWN else "0.75"


def column_title(results: Results, where: Score) -> str:
    """What is measured, and which way is better."""
    protocol, kind, variant, metric = where
    arrow = "↑" if results.protocols[protocol].higher_is_better[metric] else "↓"
    return (
        ", ".join(
            text for text in (protocol, kind, variant, _METRICS.get(metric, metric.replace("_", " "))) if text
        )
        + f" {arrow}"
    )
