"""A run: every method explains every pair once, every protocol judges, and a kill loses nothing.

Workers (`evaluation.work`) judge, in this process or in others (`base.engines`); only this process writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from xfr_plugin.base.engines import opened
from xfr_plugin.evaluation.clock import Clock, Progress
from xfr_plugin.evaluation.pairs import PairEntry
from xfr_plugin.evaluation.store import MapCache, Shard, records_path
from xfr_plugin.evaluation.work import COST, Judged, JudgeJob, Judging

__all__ = ["Run"]

_MEMORY_PAIRS = 2
"""Pairs in which the memory of each method is measured."""

_METHODS_A_JOB = 8
"""Of one pair, where there are several workers: what protocols know of a pair serves them all."""

_PAIRS_A_ROUND = 16
"""Jobs of one pair lie so many pairs apart, or several workers would find out at once what the pair is."""


@dataclass
class Run:
    """The records and maps of a run, and what is not done of it.

    Attributes:
        task: what is judged by what.
        folder: of the run.
        keep_maps: keep maps on disk, for protocols added later, agreement and average maps.
        progress: called after each step.
    """

    task: Judging
    folder: Path
    keep_maps: bool = True
    progress: Progress | None = None
    _shards: dict[tuple[str, str], Shard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.maps = MapCache(self.folder / "maps" if self.keep_maps else None)
        self.facts = Shard(self.folder / "records" / "pairs.jsonl")

    def shard(self, protocol: str, method: str) -> Shard:
        """Records of a protocol on a method."""
        if (protocol, method) not in self._shards:
            self._shards[protocol, method] = Shard(records_path(self.folder, protocol, method))
        return self._shards[protocol, method]

    def retry_failures(self) -> None:
        """Forget what failed, so that it is tried again."""
        self.facts.drop(lambda line: "error" in line)
        for method in self.task.methods:
            for protocol in (COST, *self.task.protocols):
                self.shard(protocol, method.name).drop(lambda line: "error" in line)

    def do(self, *kinds: Sequence[PairEntry], engine: str, workers: int | None) -> None:
        """Do what is not done yet. Kinds of pairs take turns, so that all have been seen at any time.

        Args:
            kinds: lists of pairs.
            engine: see `base.engines.opened`.
            workers: the same.
        """
        order = _merged(*kinds)
        clock = Clock(self.task.methods, len(order))
        jobs = self._jobs(order, 1 if workers == 1 else _METHODS_A_JOB)
        planned = Counter(method for job in jobs for method, _ in job.todo)
        for method in self.task.methods:
            for _ in range(len(order) - planned[method.name]):
                self._passed(clock, method.name, None)
        with closing(opened(engine, self.task, workers)) as workforce:
            while jobs:
                apart: list[JudgeJob] = []
                for job, judged in workforce.results(jobs):
                    if judged.died and len(job.todo) > 1:
                        apart += job.apart()  # one method's fault must not take the others along
                        continue
                    self._record(job.entry, judged)
                    for name, seconds in judged.seconds.items():
                        self._passed(clock, name, seconds)
                jobs = apart

    def _passed(self, clock: Clock, method: str, seconds: float | None) -> None:
        clock.passed(method, seconds)
        if self.progress is not None:
            self.progress(clock.step(method))

    def _jobs(self, order: Iterable[PairEntry], size: int) -> list[JudgeJob]:
        """What is not done yet, of so many methods at once."""
        names = [method.name for method in self.task.methods]
        watched = Counter({name: len(self.shard(COST, name).lines) for name in names})
        by_pair: list[list[JudgeJob]] = []
        for entry in order:
            judges = self.task.judges(entry)
            left = {
                name: tuple(p for p in judges if entry.name not in self.shard(p, name).lines)
                for name in names
            }
            todo = [(name, protocols) for name, protocols in left.items() if protocols]
            by_pair.append([])
            for start in range(0, len(todo), size):
                some = tuple(todo[start : start + size])
                watch = tuple(name for name, _ in some if watched[name] < _MEMORY_PAIRS)
                watched.update(watch)
                known = entry.name in self.facts.lines
                by_pair[-1].append(JudgeJob(entry, some, not known, watch, self.maps.folder))
        if size == 1:
            return list(chain.from_iterable(by_pair))
        rounds = (by_pair[i : i + _PAIRS_A_ROUND] for i in range(0, len(by_pair), _PAIRS_A_ROUND))
        return [job for some in rounds for jobs in zip_longest(*some) for job in jobs if job is not None]

    def _record(self, entry: PairEntry, judged: Judged) -> None:
        """Write what came of a job, maps first: a line says that nothing is left to do."""
        if judged.facts is not None and entry.name not in self.facts.lines:
            self.facts.append(judged.facts)
        for method, maps in judged.maps.items():
            self.maps.put(method, entry.name, maps)
        for protocol, method, line in judged.lines:
            shard = self.shard(protocol, method)
            if (
                protocol != COST or entry.name not in shard.lines
            ):  # maps may be made again for a protocol that is new
                shard.append(line)


def _merged(*kinds: Sequence[PairEntry]) -> list[PairEntry]:
    """Several lists in one, evenly mixed."""
    placed = [
        ((i + 0.5) / len(entries), number, i)
        for number, entries in enumerate(kinds)
        for i in range(len(entries))
    ]
    return [kinds[number][i] for _, number, i in sorted(placed)]
