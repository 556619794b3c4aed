"""What a process of `evaluate` does: it holds recognizer, methods and protocols, and takes one pair after another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr._base.pair import PairAttribution
from xfr_plugin.attr._base.prepared import pixel_maps
from xfr_plugin.attr.registry import Method
from xfr_plugin.base.memory import measured_peak
from xfr_plugin.errors import InputError, OutputError, in_one_line
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.pairs import PairEntry, load_pair
from xfr_plugin.evaluation.protocol import (
    EvaluationPair,
    MapProtocol,
    Measurement,
    MethodProtocol,
    PairMaps,
    Protocol,
    Setting,
)
from xfr_plugin.evaluation.store import Line, MapCache
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.recognition.backends import PAYS

__all__ = ["COST", "Judge", "JudgeJob", "Judged", "Judging"]

COST = "cost"
"""Name under which time and memory are recorded, of every map that is made."""

_UNITS = 4096
"""Embeddings that a worker keeps."""


@dataclass(frozen=True)
class Judging:
    """What all workers of a run share.

    Attributes:
        setting: recognizer, threshold and seed.
        faces: where the pairs come from; readable on each machine of a cluster, under the same name.
        methods: to be judged; chance baselines are among them.
        protocols: by name.
    """

    setting: Setting
    faces: FaceFolder
    methods: Sequence[Method]
    protocols: Mapping[str, Protocol]

    @property
    def name(self) -> str:
        """Of the recognizer."""
        return self.setting.recognizer.name

    @property
    def device(self) -> torch.device:
        """Of the recognizer."""
        return self.setting.recognizer.device

    def worker(self) -> Judge:
        """See `Judge`."""
        return Judge(self)

    def judges(self, entry: PairEntry) -> dict[str, Protocol]:
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


@dataclass(frozen=True)
class JudgeJob:
    """A pair that methods are to explain, and protocols to judge.

    Attributes:
        entry: the pair.
        todo: names of methods, each with those of protocols.
        facts: its facts are not known yet.
        watched: methods whose memory is measured, which takes time itself.
        maps: folder of the maps that there are; None if none are kept.
    """

    entry: PairEntry
    todo: tuple[tuple[str, tuple[str, ...]], ...]
    facts: bool
    watched: tuple[str, ...]
    maps: Path | None

    def load(self) -> LoadedJob:
        """Read the maps."""
        cache = MapCache(self.maps)
        return self, {method: cache.get(method, self.entry.name) for method, _ in self.todo}

    def failed(self, why: str) -> Judged:
        """What comes of a job that could not be done."""
        error: Line = {"pair": self.entry.name, "error": why}
        return Judged(
            lines=[(name, method, error) for method, protocols in self.todo for name in protocols],
            seconds={method: None for method, _ in self.todo},
            died=True,
        )

    def apart(self) -> list[JudgeJob]:
        """A job for each method."""
        return [replace(self, todo=(one,)) for one in self.todo]


LoadedJob: TypeAlias = tuple[JudgeJob, Mapping[str, PairMaps | None]]
"""A job, and the maps of its pair that there are by method."""


@dataclass
class Judged:
    """What comes of a job.

    Attributes:
        facts: of the pair, if they were asked for: its score, say; or why the pair cannot be had.
        lines: protocol, method, and what is recorded.
        maps: those that were made, by method.
        seconds: that each method took; None if there was nothing to do.
        died: workers died of the job.
    """

    facts: Line | None = None
    lines: list[tuple[str, str, Line]] = field(default_factory=list)
    maps: dict[str, PairMaps] = field(default_factory=dict)
    seconds: dict[str, float | None] = field(default_factory=dict)
    died: bool = False


class Judge:
    """Does jobs, one at a time. What cannot be done is recorded with a reason."""

    def __init__(self, task: Judging) -> None:
        self.task, self.setting = task, task.setting
        self.methods = {method.name: method for method in task.methods}
        self._built: dict[str, PairAttribution | str] = {}
        self._units: dict[str, Tensor] = {}
        self._last: tuple[str, EvaluationPair | str] | None = None

    def __call__(self, loaded: LoadedJob) -> Judged:
        """Have the methods of a job explain its pair, and the protocols judge them."""
        # an export is made at once, or maps would depend, by rounding, on how many were made before
        self.setting.recognizer.for_forward_passes(PAYS)
        job, maps = loaded
        pair, found = self._pair(job.entry), Judged(seconds={method: None for method, _ in job.todo})
        if job.facts:
            found.facts = self._facts(job.entry, pair)
            pair = found.facts.get("error", pair)
        if not isinstance(pair, str):
            for method, protocols in job.todo:
                began = time.perf_counter()
                self._method(self.methods[method], job, pair, maps[method], protocols, found)
                found.seconds[method] = time.perf_counter() - began
        return found

    def _pair(self, entry: PairEntry) -> EvaluationPair | str:
        """The pair, or why it cannot be had. The last one is kept, as protocols keep what they know of it."""
        if self._last is None or self._last[0] != entry.name:
            try:
                self._last = entry.name, load_pair(self.task.faces, entry, self.setting.photographs)
            except Exception as error:  # one bad face must not end a night's run
                self._last = entry.name, in_one_line(error)
        return self._last[1]

    def _facts(self, entry: PairEntry, pair: EvaluationPair | str) -> Line:
        """What is noted of a pair."""
        if isinstance(pair, str):
            return {"pair": entry.name, "error": pair}
        try:
            return {"pair": entry.name, "facts": self._facts_of(entry, pair)}
        except Exception as error:  # as above
            return {"pair": entry.name, "error": in_one_line(error)}

    def _facts_of(self, entry: PairEntry, pair: EvaluationPair) -> dict[str, Any]:
        setting, reference = self.setting, self._unit(entry.reference)
        probe = setting.embed(pair.probe[None]).cpu()[0] if entry.photographed else self._unit(entry.probe)
        clean = float(setting.compare(probe[None], reference[None]))
        facts: dict[str, Any] = {"genuine": entry.genuine, "score": clean}
        if entry.planting is not None:
            score = float(setting.compare(setting.embed(pair.probe[None]).cpu(), reference[None]))
            facts |= entry.planting.model_dump(include={"game", "region", "control", "strength", "blending"})
            facts |= {"planted_score": score, "moved": setting.as_cosine(score - clean)}
        if entry.cover is not None:
            without = setting.compare(self._unit(entry.cover.clean)[None], reference[None])
            facts |= {"kind": entry.cover.kind, "moved": setting.as_cosine(clean - float(without))}
        return facts

    def _unit(self, file: str) -> Tensor:
        """Unit embedding of a face, D, on the CPU; made alone, so that it does not depend on what came before."""
        if file not in self._units:
            if len(self._units) >= _UNITS:
                self._units.clear()
            self._units[file] = self.setting.embed(self.task.faces.pixels(file)[None])[0].cpu()
        return self._units[file]

    def _method(
        self,
        method: Method,
        job: JudgeJob,
        pair: EvaluationPair,
        maps: PairMaps | None,
        protocols: Sequence[str],
        found: Judged,
    ) -> None:
        """Have a method explain a pair, if it has not, and protocols judge it."""
        judges = self.task.judges(job.entry)
        both = any(protocol.sides == "both" for protocol in judges.values())
        why = ""
        if maps is None or (both and not np.isfinite(maps[1]).all()):
            try:
                maps, cost = self._maps(method, job, pair, both)
                found.maps[method.name] = maps
                found.lines.append((COST, method.name, cost))
            except Exception as error:  # a method may fail without taking the others along
                why = in_one_line(error)
        for name in protocols:
            began, line = time.perf_counter(), {"pair": job.entry.name}
            line |= {"error": why} if maps is None else self._judged(judges[name], method, pair, maps)
            seconds = time.perf_counter() - began
            found.lines.append((name, method.name, {**line, "seconds": round(seconds, 4)}))

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

    def _maps(self, method: Method, job: JudgeJob, pair: EvaluationPair, both: bool) -> tuple[PairMaps, Line]:
        """Maps made now, and what they cost."""
        attribution = self._attribution(method)
        both = both or attribution.reads_both_faces
        with measured_peak(self.task.device) if method.name in job.watched else nullcontext() as memory:
            began = time.perf_counter(), time.process_time()
            maps = self._explained(attribution, job.entry, pair, both)
            seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        peak = memory.extra if memory else None
        return maps, _cost(job.entry.name, seconds, 2 if both else 1, peak)

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
        self, attribution: PairAttribution, entry: PairEntry, pair: EvaluationPair, both: bool
    ) -> PairMaps:
        recognizer = self.setting.recognizer
        probe, reference = pair.images(recognizer)
        if both:
            maps = attribution.attribute((probe, reference))
            found = pixel_maps(maps[0])[0], pixel_maps(maps[1])[0]
        else:
            partner = self._unit(entry.reference)[None].to(recognizer.device, recognizer.dtype)
            alone = pixel_maps(attribution.attribute(probe, additional_forward_args=partner))[0]
            found = alone, np.full_like(alone, np.nan)
        if not all(np.isfinite(one).all() for one in found[: 1 + both]):
            raise InputError("its maps hold values that are not finite")
        return found


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
