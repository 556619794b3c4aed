"""What needs all natural pairs: the part of the evidence that is about this pair, and the rows beside the methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.evaluation.natural.agreement import Regional, Vector, agreements
from xfr_plugin.evaluation.natural.truth import OPERATORS
from xfr_plugin.evaluation.protocols.natural import AREA, HALVES, LEVEL, SAID, TRUE, Natural
from xfr_plugin.evaluation.results import Record

__all__ = ["natural_references"]

_Table = dict[tuple[str, str], dict[int, float]]
"""Variant and metric → place → value, of one pair."""


def natural_references(records: Iterable[Record], is_genuine: Mapping[str, bool]) -> Iterator[Record]:
    """Records of `specific` for every method, and of the rows beside them: ceiling, constant answer, area.

    Args:
        records: of a run; those of natural pairs are looked at.
        is_genuine: by pair.
    """
    tables = _tables(records)
    for kind in (True, False):
        of_kind = {
            method: {pair: table for pair, table in pairs.items() if is_genuine[pair] == kind}
            for method, pairs in tables.items()
        }
        known = {pair: table for pairs in of_kind.values() for pair, table in pairs.items()}
        if len(known) > 1:
            yield from _of_kind(of_kind, known)


def _of_kind(tables: Mapping[str, Mapping[str, _Table]], known: Mapping[str, _Table]) -> Iterator[Record]:
    """Of genuine or of impostor pairs."""
    measured = {variant for table in known.values() for variant, metric in table if metric == TRUE}
    truths = {name: {pair: _truth(table, name) for pair, table in known.items()} for name in measured}
    for operator in (name for name in OPERATORS if name in measured):
        for method, pairs in tables.items():
            said = {pair: _vector(table["", SAID]) for pair, table in pairs.items()}
            yield from _specific(method, operator, said, truths[operator])
        yield from _row("constant", operator, _constant(truths[operator]), truths[operator])
        yield from _row(
            "area", operator, {p: (t.area, 0.0) for p, t in truths[operator].items()}, truths[operator]
        )
        first, second = HALVES if operator == "strangers" else ("strangers", operator)
        if first in measured:
            ceiling = {pair: (truth.true, truth.level) for pair, truth in truths[first].items()}
            yield from _row("ceiling", operator, ceiling, truths[second])
            said = {pair: vector for pair, (vector, _) in ceiling.items()}
            yield from _specific("ceiling", operator, said, truths[second])


def _row(
    name: str, operator: str, said: Mapping[str, tuple[Vector, float]], truths: Mapping[str, Regional]
) -> Iterator[Record]:
    for pair, (vector, level) in said.items():
        for metric, value in agreements(vector, truths[pair], level).items():
            if name != "area" or metric in ("total", "rank"):  # of which the densities are all the same
                yield Record(pair, name, Natural.name, operator, metric, None, value)


def _constant(truths: Mapping[str, Regional]) -> dict[str, tuple[Vector, float]]:
    """The mean of the other pairs, and its level."""
    values = np.sum([truth.true for truth in truths.values()], axis=0)
    levels = sum(truth.level for truth in truths.values())
    others = len(truths) - 1
    return {
        pair: ((values - truth.true) / others, (levels - truth.level) / others)
        for pair, truth in truths.items()
    }


def _specific(
    name: str, operator: str, said: Mapping[str, Vector], truths: Mapping[str, Regional]
) -> Iterator[Record]:
    """A pair's part of the correlation over all pairs and regions, each region's mean being taken off.

    The mean of these parts over pairs is that correlation.
    """
    pairs = [pair for pair in said if pair in truths]
    if len(pairs) < 2:
        return
    true = {pair: truths[pair].true for pair in pairs}
    sides = [_standardised([vectors[pair] for pair in pairs]) for vectors in (said, true)]
    for pair, part in zip(pairs, (sides[0] * sides[1]).mean(axis=1), strict=True):
        yield Record(pair, name, Natural.name, operator, "specific", None, float(part))


def _standardised(vectors: Sequence[Vector]) -> NDArray[np.float64]:
    """Less each region's mean, over the root mean square of all; NaN if nothing is left."""
    centred = np.array(vectors) - np.mean(vectors, axis=0)
    scale = float(np.sqrt(np.mean(centred**2)))
    return centred / scale if scale > 1e-12 else np.full_like(centred, np.nan)


def _tables(records: Iterable[Record]) -> dict[str, dict[str, _Table]]:
    """Method → pair → what was listed."""
    found: dict[str, dict[str, _Table]] = {}
    for record in records:
        if record.protocol == Natural.name and record.at is not None:
            table = found.setdefault(record.method, {}).setdefault(record.pair, {})
            table.setdefault((record.variant, record.metric), {})[int(record.at)] = record.value
    return found


def _truth(table: _Table, name: str) -> Regional:
    return Regional(_vector(table[name, TRUE]), _vector(table["", AREA]), table[name, LEVEL][0])


def _vector(values: Mapping[int, float]) -> Vector:
    return np.array([values[place] for place in sorted(values)])
