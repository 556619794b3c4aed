"""What a run found: every number, every failure, and their summary."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.manifest import RunManifest
from xfr_plugin.evaluation.pairs import PairEntry, person_of
from xfr_plugin.evaluation.protocol import Protocol
from xfr_plugin.evaluation.store import Shard, records_path
from xfr_plugin.evaluation.summary import Key, SummaryRow, clustered_means, clustered_ratio, medians
from xfr_plugin.evaluation.work import COST

__all__ = ["AGREEMENT", "Failure", "Record", "Results", "collect"]

AGREEMENT = "agreement"
"""Name under which agreement between methods is recorded."""


class Record(NamedTuple):
    """One number about one method on one pair.

    Attributes:
        pair: name of the pair.
        method: name of the method, or of a chance baseline.
        protocol: name of the protocol.
        variant, metric, at, value: see `Measurement`.
    """

    pair: str
    method: str
    protocol: str
    variant: str
    metric: str
    at: float | None
    value: float


class Failure(NamedTuple):
    """A pair that a protocol could not judge a method on; method and protocol are empty for a pair without faces."""

    pair: str
    method: str
    protocol: str
    error: str


@dataclass(frozen=True)
class Results:
    """Everything that a run found.

    Attributes:
        manifest: what was run.
        protocols: that were run, by name.
        facts: of each pair, by its name: whether it is genuine, its score, and what was planted.
        records: every number, in the order of pairs within methods within protocols.
        failures: what could not be had.
    """

    manifest: RunManifest
    protocols: Mapping[str, Protocol]
    facts: Mapping[str, Mapping[str, Any]]
    records: tuple[Record, ...]
    failures: tuple[Failure, ...]
    _cache: dict[str, list[SummaryRow]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def methods(self) -> list[str]:
        """Methods with results, chance baselines last."""
        names = dict.fromkeys(record.method for record in self.records)
        return sorted(names, key=lambda name: beside(name) is not None)

    def summary(self) -> list[SummaryRow]:
        """Means over pairs with 95 % bootstrap intervals, by protocol, slice, variant, metric, place and method.

        Pairs of one probe's person are resampled together. Of costs it is the median.
        """
        if "rows" not in self._cache:
            self._cache["rows"] = self._summarised()
        return self._cache["rows"]

    def leads(self, method: str, protocol: str, kind: str, metric: str) -> list[SummaryRow]:
        """By how much a method's values exceed those of every other method on the same pairs, with intervals.

        Intervals of two methods can overlap though one is above the other on nearly every pair; these tell.

        Args:
            method: whose lead is asked for.
            protocol: name.
            kind: of pairs, see `Protocol.slices`.
            metric: of the measurements without a variant.
        """
        values: dict[str, dict[str, float]] = {}
        for record in self.records:
            wanted = (record.protocol, record.variant, record.metric) == (protocol, "", metric)
            if wanted and kind in self._slices(record):
                values.setdefault(record.method, {})[record.pair] = record.value
        own = values.pop(method, {})
        groups: dict[Key, dict[str, float]] = {
            (kind, "", metric, None, other): {pair: own[pair] - found[pair] for pair in own if pair in found}
            for other, found in values.items()
        }
        return clustered_means(protocol, groups, self._people())

    def share_of(self, whole: str, where: tuple[str, str, str, str], method: str) -> SummaryRow | None:
        """Mean of a method over that of another row (the noise ceiling) on the same pairs, with an interval.

        Args:
            whole: the other row.
            where: protocol, slice, variant and metric.
            method: name.
        """
        protocol, kind, variant, metric = where
        first, second = (
            {
                record.pair: record.value
                for record in self._by_row.get((protocol, variant, metric, name), ())
                if kind in self._slices(record)
            }
            for name in (method, whole)
        )
        found = clustered_ratio(first, second, self._people())
        return found and SummaryRow(protocol, kind, variant, metric, None, method, *found)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write tables and plots; see `xfr_plugin.evaluation.report.files`.

        Raises:
            ResultError: the folder cannot be written to.
        """
        from xfr_plugin.evaluation.report.files import write_results  # report builds on this module

        return write_results(self, Path(folder))

    def _summarised(self) -> list[SummaryRow]:
        grouped: dict[str, dict[tuple[str, str, str, float | None, str], dict[str, float]]] = {}
        for record in self.records:
            for kind in self._slices(record):
                key = (kind, record.variant, record.metric, record.at, record.method)
                group = grouped.setdefault(record.protocol, {}).setdefault(key, {})
                group[record.pair] = record.value
        people = self._people()
        rows: list[SummaryRow] = []
        for protocol, groups in grouped.items():
            rows += (
                medians(protocol, groups) if protocol == COST else clustered_means(protocol, groups, people)
            )
        return rows

    @cached_property
    def _by_row(self) -> dict[tuple[str, str, str, str], list[Record]]:
        """Records that stand alone, by protocol, variant, metric and method."""
        found: dict[tuple[str, str, str, str], list[Record]] = {}
        for record in self.records:
            if record.at is None:
                key = (record.protocol, record.variant, record.metric, record.method)
                found.setdefault(key, []).append(record)
        return found

    def _people(self) -> dict[str, str]:
        return {entry.name: _cluster(entry) for entry in self.manifest.entries}

    def _slices(self, record: Record) -> tuple[str, ...]:
        protocol = self.protocols.get(record.protocol)
        return protocol.slices(self.facts[record.pair]) if protocol else ("",)


def collect(
    folder: Path,
    manifest: RunManifest,
    protocols: Mapping[str, Protocol],
    pairs: Sequence[PairEntry],
    methods: Iterable[str],
) -> Results:
    """Read what a run has recorded so far of these pairs and methods.

    Raises:
        ResultError: a damaged record.
    """
    wanted = [entry.name for entry in pairs]
    facts, failures = _facts(folder, wanted)
    records: list[Record] = []
    names = list(methods)
    for protocol in (*protocols, COST):
        for method in names:
            shard = Shard(records_path(folder, protocol, method), read_only=True)
            for pair in wanted:
                line = shard.lines.get(pair)
                if line is not None and "error" in line:
                    failures.append(Failure(pair, method, protocol, line["error"]))
                elif line is not None:
                    records += _records(line, method, protocol)
    return Results(manifest, protocols, facts, tuple(records), tuple(failures))


def _facts(folder: Path, wanted: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[Failure]]:
    lines = Shard(folder / "records" / "pairs.jsonl", read_only=True).lines
    known = [lines[pair] for pair in wanted if pair in lines]
    facts = {line["pair"]: line["facts"] for line in known if "facts" in line}
    return facts, [Failure(line["pair"], "", "", line["error"]) for line in known if "error" in line]


def _records(line: Mapping[str, Any], method: str, protocol: str) -> list[Record]:
    return [
        Record(line["pair"], method, protocol, variant, metric, at, np.nan if value is None else value)
        for variant, metric, value, at in line["measured"]
    ]


def _cluster(entry: PairEntry) -> str:
    person = person_of(entry.probe)
    return entry.name if person == "." else person
