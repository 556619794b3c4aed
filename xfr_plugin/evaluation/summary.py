"""From scores of single maps to a table with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from xfr_plugin.base.statistics import ratio

__all__ = ["RESAMPLES", "SummaryRow", "clustered_means", "clustered_ratio", "medians"]

RESAMPLES = 2000
"""Draws behind an interval."""


class SummaryRow(NamedTuple):
    """A mean (of costs: the median) over pairs with its 95 % bootstrap interval.

    Attributes:
        protocol: name.
        slice: group of pairs, see `Protocol.slices`.
        variant, metric, at: see `Measurement`.
        method: name.
        number: of pairs for which the metric is defined.
        mean: over these.
        low: lower end of the interval; NaN where all pairs are of one person, of whom nothing follows for others.
        high: upper end, likewise.
    """

    protocol: str
    slice: str
    variant: str
    metric: str
    at: float | None
    method: str
    number: int
    mean: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether it is known how far the mean can be trusted."""
        return not math.isnan(self.low)


Key: TypeAlias = tuple[str, str, str, float | None, str]
"""Slice, variant, metric, place and method."""

_UNKNOWN = (math.nan, math.nan)


def clustered_means(
    protocol: str, groups: Mapping[Key, Mapping[str, float]], clusters: Mapping[str, str]
) -> list[SummaryRow]:
    """Means with percentile intervals over resampled clusters of pairs; the same draws serve all groups.

    Args:
        protocol: name, for the rows.
        groups: value by pair, for each key. Values that are not finite are left out.
        clusters: cluster of each pair. Pairs of a cluster are drawn together or not at all.
    """
    groups = {key: values for key, values in groups.items() if np.isfinite(list(values.values())).any()}
    if not groups:
        return []
    names = sorted({clusters[pair] for values in groups.values() for pair in values})
    place = {name: i for i, name in enumerate(names)}
    sums, counts = np.zeros((2, len(names), len(groups)))
    for column, values in enumerate(groups.values()):
        for pair, value in values.items():
            if np.isfinite(value):
                sums[place[clusters[pair]], column] += value
                counts[place[clusters[pair]], column] += 1
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    rows = []
    for chunk in np.array_split(np.arange(len(groups)), max(1, len(groups) // 500)):
        means = ratio(draws @ sums[:, chunk], draws @ counts[:, chunk])
        rows.append(np.nanquantile(means, [0.025, 0.975], axis=0) if len(chunk) else np.empty((2, 0)))
    low, high = np.where((counts > 0).sum(axis=0) > 1, np.concatenate(rows, axis=1), np.nan)
    total, number = sums.sum(axis=0), counts.sum(axis=0)
    return [
        SummaryRow(protocol, *key, int(number[i]), float(total[i] / number[i]), float(low[i]), float(high[i]))
        for i, key in enumerate(groups)
        if number[i]
    ]


def clustered_ratio(
    values: Mapping[str, float], wholes: Mapping[str, float], clusters: Mapping[str, str]
) -> tuple[int, float, float, float] | None:
    """Mean over mean on the same pairs: number of pairs, ratio, and its interval over resampled clusters.

    Args:
        values: by pair.
        wholes: by pair, what they are shares of.
        clusters: see `clustered_means`.

    Returns:
        None without a pair that both have, or if the whole is not above 0.
    """
    pairs = [p for p in values if p in wholes and np.isfinite(values[p]) and np.isfinite(wholes[p])]
    names = sorted({clusters[pair] for pair in pairs})
    sums = np.zeros((len(names), 2))
    for pair in pairs:
        sums[names.index(clusters[pair])] += values[pair], wholes[pair]
    if not pairs or sums[:, 1].sum() <= 0:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES) @ sums
    low, high = (
        np.nanquantile(ratio(drawn[:, 0], drawn[:, 1]), [0.025, 0.975]) if len(names) > 1 else _UNKNOWN
    )
    whole = sums.sum(axis=0)
    return len(pairs), float(whole[0] / whole[1]), float(low), float(high)


def medians(protocol: str, groups: Mapping[Key, Mapping[str, float]]) -> list[SummaryRow]:
    """Medians with percentile intervals over resampled pairs: for times, of which the first ones are too long."""
    rng = np.random.default_rng(0)
    rows = []
    for key, values in groups.items():
        array = np.array(list(values.values()))
        drawn = np.median(array[rng.integers(len(array), size=(500, len(array)))], axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(array) > 1 else _UNKNOWN
        rows.append(SummaryRow(protocol, *key, len(array), float(np.median(array)), float(low), float(high)))
    return rows
