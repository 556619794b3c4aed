"""The engine: every method explains every pair once, every protocol judges, and a kill loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xfr_plugin.attr._base.pair import PairAttribution
from xfr_plugin.attr._base.prepared import pixel_maps
from xfr_plugin.attr.registry import Method
from xfr_plugin.base.memory import measured_peak
from xfr_plugin.errors import InputError, OutputError, in_one_line
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.clock import Clock, Progress
from xfr_plugin.evaluation.pairs import PairEntry, load_pair
from xfr_plugin.evaluation.processes import Worked, steps_in_processes
from xfr_plugin.evaluation.protocol import (
    EvaluationPair,
    MapProtocol,
    Measurement,
    MethodProtocol,
    PairMaps,
    Protocol,
    Setting,
)
from xfr_plugin.evaluation.store import EmbeddingCache, Line, MapCache, Shard, records_path
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.recognition.backends import PAYS

__all__ = ["COST", "Engine"]

COST = "cost"
"""Name under which time and memory are recorded, of every map that is made."""

_MEMORY_PAIRS = 2


@dataclass
class Engine:
    """Makes maps and has them judged, pair by pair, so that all methods have seen the same pairs at any time.

    Attributes:
        setting: recognizer, threshold and seed.
        faces: where the pairs come from.
        methods: to be judged; chance baselines are among them.
        protocols: by name.
        folder: of the run.
        keep_maps: keep maps on disk, for protocols added later, agreement and average maps.
        progress: called after each step.
    """

    setting: Setting
    faces: FaceFolder
    methods: Sequence[Method]
    protocols: Mapping[str, Protocol]
    folder: Path
    keep_maps: bool = True
    progress: Progress | None = None
    _built: dict[str, PairAttribution | str] = field(default_factory=dict)
    _shards: dict[tuple[str, str], Shard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.maps = MapCache(self.folder / "maps" if self.keep_maps else None)
        self.facts = Shard(self.folder / "records" / "pairs.jsonl")
        self.embeddings = EmbeddingCache(
            self.folder / "embeddings.npz",
            lambda file: self.setting.embed(self.faces.pixels(file)[None])[0],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process has its own records in memory, and tells nobody of its steps."""
        setting = replace(self.setting, _fast=None)
        return Engine, (setting, self.faces, self.methods, self.protocols, self.folder, self.keep_maps)

    def shard(self, protocol: str, method: str) -> Shard:
        """Records of a protocol on a method."""
        if (protocol, method) not in self._shards:
            self._shards[protocol, method] = Shard(records_path(self.folder, protocol, method))
        return self._shards[protocol, method]

    def retry_failures(self) -> None:
        """Forget what failed, so that it is tried again."""
        self.facts.drop(lambda line: "error" in line)
        for method in self.methods:
            for protocol in (COST, *self.protocols):
                self.shard(protocol, method.name).drop(lambda line: "error" in line)

    def run(self, *kinds: Sequence[PairEntry], workers: int = 1) -> None:
        """Do what is not done yet, in this process or in several. Kinds of pairs take turns."""
        order = _merged(*kinds)
        clock = Clock(self.methods, len(order))
        steps = (
            steps_in_processes(self, order, workers)
            if workers > 1
            else (step for entry in order for step in self.judged(entry))
        )
        try:
            for method, seconds in steps:
                clock.passed(method, seconds)
                if self.progress is not None:
                    self.progress(clock.step(method))
        finally:
            self.embeddings.save()

    def judged(self, entry: PairEntry) -> Iterator[Worked]:
        """Do what is not done yet of a pair; yields each method that is done with it."""
        # an export is made at once, or maps would depend, by rounding, on how many were made before
        self.setting.recognizer.for_forward_passes(PAYS)
        judges = self._judges(entry)
        todo = {
            method.name: [name for name in judges if entry.name not in self.shard(name, method.name).lines]
            for method in self.methods
        }
        pair = self._loaded(entry) if any(todo.values()) else None
        for method in self.methods:
            began = time.perf_counter()
            is_worked = bool(todo[method.name]) and pair is not None
            if is_worked:
                assert pair is not None
                self._method(method, entry, pair, judges, todo[method.name])
            yield method.name, time.perf_counter() - began if is_worked else None

    def _judges(self, entry: PairEntry) -> dict[str, Protocol]:
        """Protocols that can say something about a pair."""
        kind = "genuine" if entry.genuine else "impostor"
        return {
            name: protocol
            for name, protocol in self.protocols.items()
            if protocol.planted == (entry.planting is not None)
            and protocol.covered == (entry.cover is not None)
            and protocol.photographed == entry.photographed
            and protocol.judges in ("all", kind)
        }

    def _loaded(self, entry: PairEntry) -> EvaluationPair | None:
        """The pair, its facts noted; None if it cannot be had, which is noted too."""
        is_known, found = entry.name in self.facts.lines, dict[str, Any]()
        pair: EvaluationPair | None = None
        try:
            pair = load_pair(self.faces, entry, self.setting.photographs)
            if not is_known:
                found = {"facts": self._facts_of(entry, pair)}
        except OutputError:
            raise
        except Exception as error:  # one bad face must not end a night's run
            pair, found = None, {"error": in_one_line(error)}
        if not is_known:
            self.facts.append({"pair": entry.name, **found})
        return pair

    def _facts_of(self, entry: PairEntry, pair: EvaluationPair) -> dict[str, Any]:
        reference = self.embeddings(entry.reference)
        probe = (
            self.setting.embed(pair.probe[None]).cpu()[0]
            if entry.photographed
            else self.embeddings(entry.probe)
        )
        clean = float(self.setting.compare(probe[None], reference[None]))
        facts: dict[str, Any] = {"genuine": entry.genuine, "score": clean}
        if entry.planting is not None:
            score = float(self.setting.compare(self.setting.embed(pair.probe[None]).cpu(), reference[None]))
            facts |= entry.planting.model_dump(include={"game", "region", "control", "strength", "blending"})
            facts |= {"planted_score": score, "moved": self.setting.as_cosine(score - clean)}
        if entry.cover is not None:
            without = self.setting.compare(self.embeddings(entry.cover.clean)[None], reference[None])
            facts |= {"kind": entry.cover.kind, "moved": self.setting.as_cosine(clean - float(without))}
        return facts

    def _method(
        self,
        method: Method,
        entry: PairEntry,
        pair: EvaluationPair,
        judges: Mapping[str, Protocol],
        todo: Sequence[str],
    ) -> None:
        """Have a method explain a pair, if it has not, and the protocols judge it."""
        sides = "both" if any(protocol.sides == "both" for protocol in judges.values()) else "probe"
        maps = self._maps_of(method, entry, pair, sides)
        for name in todo:
            began, line = time.perf_counter(), {"pair": entry.name}
            if isinstance(maps, str):
                line |= {"error": maps}
            else:
                line |= self._judged(judges[name], method, pair, maps)
            seconds = time.perf_counter() - began
            self.shard(name, method.name).append({**line, "seconds": round(seconds, 4)})

    def _judged(self, protocol: Protocol, method: Method, pair: EvaluationPair, maps: PairMaps) -> Line:
        if method.name in CHANCE_BASELINES:
            sign = np.float32(protocol.salient_sign(pair))
            maps = (sign * maps[0], sign * maps[1])
        try:
            if isinstance(protocol, MapProtocol):
                measured = list(protocol.judge(pair, maps, self.setting))
            elif isinstance(protocol, MethodProtocol):
                measured = list(protocol.judge(pair, maps, method, self.setting))
            else:
                raise InputError(f"{protocol.name} judges neither maps nor methods")
        except OutputError:
            raise
        except Exception as error:  # a protocol may fail on a method without taking the others along
            return {"error": in_one_line(error)}
        return {"measured": [_plain(measurement) for measurement in measured]}

    def _maps_of(self, method: Method, entry: PairEntry, pair: EvaluationPair, sides: str) -> PairMaps | str:
        """Maps from the disk or made now; or why there are none."""
        maps = self.maps.get(method.name, entry.name)
        if maps is not None and (sides == "probe" or np.isfinite(maps[1]).all()):
            return maps
        costs = self.shard(COST, method.name)
        device, peak = self.setting.recognizer.device, None
        try:
            attribution = self._attribution(method)
            watch = len(costs.lines) < _MEMORY_PAIRS  # which takes time itself
            with measured_peak(device) if watch else nullcontext() as memory:
                began = time.perf_counter(), time.process_time()
                maps = self._explained(attribution, entry, pair, sides)
                seconds = time.perf_counter() - began[0], time.process_time() - began[1]
            peak = memory.extra if memory else None
        except OutputError:
            raise
        except Exception as error:  # a method may fail without taking the others along
            return in_one_line(error)
        if entry.name not in costs.lines:
            faces = 2 if sides == "both" or attribution.reads_both_faces else 1
            costs.append(_cost(entry.name, seconds, faces, peak))
        self.maps.put(method.name, entry.name, maps)
        return maps

    def _attribution(self, method: Method) -> PairAttribution:
        if method.name not in self._built:
            try:
                built = method.build(self.setting.recognizer, self.setting.threshold)
                self._built[method.name] = built
            except Exception as error:  # it will fail on every pair: once is enough
                self._built[method.name] = in_one_line(error)
        found = self._built[method.name]
        if isinstance(found, str):
            raise InputError(found)
        return found

    def _explained(
        self, attribution: PairAttribution, entry: PairEntry, pair: EvaluationPair, sides: str
    ) -> PairMaps:
        recognizer = self.setting.recognizer
        probe, reference = pair.images(recognizer)
        if sides == "both" or attribution.reads_both_faces:
            maps = attribution.attribute((probe, reference))
            found = pixel_maps(maps[0])[0], pixel_maps(maps[1])[0]
        else:
            partner = self.embeddings(entry.reference)[None].to(recognizer.device, recognizer.dtype)
            alone = pixel_maps(attribution.attribute(probe, additional_forward_args=partner))[0]
            found = alone, np.full_like(alone, np.nan)
        if not (np.isfinite(found[0]).all() and (sides == "probe" or np.isfinite(found[1]).all())):
            raise InputError("its maps hold values that are not finite")
        return found


def _merged(*kinds: Sequence[PairEntry]) -> list[PairEntry]:
    """Several lists in one, evenly mixed."""
    placed = [
        ((i + 0.5) / len(entries), number, i)
        for number, entries in enumerate(kinds)
        for i in range(len(entries))
    ]
    return [kinds[number][i] for _, number, i in sorted(placed)]


def _cost(pair: str, seconds: tuple[float, float], faces: int, peak: int | None) -> Line:
    names = ("seconds_per_face", "cpu_seconds_per_face")
    measured: list[list[object]] = [
        ["", name, round(value / faces, 5), None] for name, value in zip(names, seconds, strict=True)
    ]
    if peak is not None:
        measured.append(["", "peak_mib", round(peak / 2**20, 1), None])
    return {"pair": pair, "measured": measured, "seconds": round(seconds[0], 5)}


def _plain(measurement: Measurement) -> list[object]:
    value = float(measurement.value)
    at = None if measurement.at is None else float(measurement.at)
    return [measurement.variant, measurement.metric, value if np.isfinite(value) else None, at]
