"""The engine: nothing lost, nothing twice, whatever happens; and nothing mixed with another run."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from helpers.evaluation_faces import (
    METHODS,
    PEOPLE,
    PROTOCOLS,
    Deadly,
    judge,
    pair_list,
    small_recognizer,
    write_faces,
)

from xfr_plugin.attr import METHODS as REGISTRY
from xfr_plugin.attr import Xssab
from xfr_plugin.errors import InputError, OutputError, ResultError, UnknownNameError
from xfr_plugin.evaluation import (
    EvaluationPair,
    MapProtocol,
    Measurement,
    PairMaps,
    PlantedPlan,
    Results,
    Setting,
    known_protocols,
)
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.clock import Step
from xfr_plugin.evaluation.report.heading import what_was_run
from xfr_plugin.evaluation.store import MapCache, Shard, locked


class Energy(MapProtocol):
    """The tiniest protocol: how much evidence there is."""

    name = "test_energy"
    title = "Energy"
    higher_is_better: ClassVar[dict[str, bool]] = {"energy": True}

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterable[Measurement]:
        yield Measurement("", "energy", float(np.nansum(np.abs(maps))))


class ProbeEnergy(Energy):
    sides: Literal["both", "probe"] = "probe"


@pytest.fixture(scope="module")
def finished(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("run")
    return out, judge(faces, out)


def without_cost(results: Results) -> list[str]:
    """All records but times and memory; as text, in which NaN equals NaN."""
    return [repr(record) for record in results.records if record.protocol != "cost"]


def lines(out: Path) -> dict[str, list[str]]:
    """Pairs of all lines, by shard."""
    shards = sorted((out / "records").rglob("*.jsonl"))
    return {
        shard.relative_to(out).as_posix(): [
            json.loads(line)["pair"] for line in shard.read_text().splitlines()
        ]
        for shard in shards
    }


def test_several_processes_find_what_one_finds(
    faces: Path, finished: tuple[Path, Results], tmp_path: Path
) -> None:
    steps: list[Step] = []
    results = judge(faces, tmp_path / "two", workers=2, progress=steps.append)
    assert without_cost(results) == without_cost(finished[1])
    assert results.facts == finished[1].facts
    assert not results.failures
    assert [step.done for step in steps] == list(range(1, steps[-1].total + 1))
    maps = MapCache(tmp_path / "two" / "maps"), MapCache(finished[0] / "maps")
    for entry in results.manifest.pairs:
        for found, expected in zip(*(cache.get("xssab", entry.name) or () for cache in maps), strict=True):
            assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.slow
def test_a_method_that_kills_its_worker_takes_no_other_along(faces: Path, tmp_path: Path) -> None:
    results = judge(faces, tmp_path, protocols=["deletion", Deadly()], limit=4, workers=2)
    died = {(failure.method, failure.protocol) for failure in results.failures}
    assert died == {("xssab", "deletion"), ("xssab", "test_deadly")}
    assert all("the worker process died of it" in failure.error for failure in results.failures)
    judged = {r.method for r in results.records if r.protocol == "test_deadly"}
    assert judged == {"input_x_gradient", *CHANCE_BASELINES}
    assert len(results.facts) == 4
    assert not judge(faces, tmp_path, protocols=["deletion"], limit=4, retry_failed=True).failures


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(
    faces: Path, finished: tuple[Path, Results], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "helpers.evaluation_faces", str(faces), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    before = lines(out)
    assert 0 < len(before["records/deletion/xssab.jsonl"]) < len(pair_list().pairs)
    with (out / "records" / "deletion" / "xssab.jsonl").open("ab") as file:
        file.write(b'{"pair": "torn off in the mid')
    results = judge(faces, out)
    expected = finished[1]
    assert without_cost(results) == without_cost(expected)
    assert results.facts == expected.facts
    assert not results.failures
    after, reference = lines(out), lines(finished[0])
    assert after == reference
    for shard, pairs in after.items():
        assert len(pairs) == len(set(pairs)), shard
        assert pairs[: len(before.get(shard, []))] == before.get(shard, [])


def test_every_pair_is_judged_once_by_every_protocol_that_can(finished: tuple[Path, Results]) -> None:
    results = finished[1]
    pairs, plantings = results.manifest.pairs, results.manifest.plantings
    assert len(pairs) == len(pair_list().pairs)
    assert results.methods == [*METHODS, *CHANCE_BASELINES]
    for method in results.methods:
        judged = [
            r.pair for r in results.records if (r.method, r.protocol, r.metric) == (method, "planted", "top1")
        ]
        assert judged == [entry.name for entry in plantings]
        curves = {r.pair for r in results.records if (r.method, r.protocol) == (method, "deletion")}
        assert curves == {entry.name for entry in pairs}
    kinds = (
        {p.planting.control for p in plantings if p.planting},
        {p.planting.strength for p in plantings if p.planting},
    )
    assert kinds == ({False, True}, {0.5, 1.0})
    both = [r for r in results.records if r.metric == "chance" and "eyes+nose" in r.pair]
    assert all(record.value == pytest.approx(2 / 7) for record in both)


def test_a_finished_run_computes_nothing_again(
    faces: Path, finished: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise AssertionError("explained again")

    monkeypatch.setattr(Xssab, "_attribute_pair", fail)
    before = lines(finished[0])
    assert without_cost(judge(faces, finished[0])) == without_cost(finished[1])
    assert lines(finished[0]) == before


def test_methods_and_protocols_may_be_added_from_kept_maps(
    faces: Path, finished: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Step] = []
    monkeypatch.setattr(Xssab, "_attribute_pair", None)
    added = judge(
        faces, finished[0], protocols=[*PROTOCOLS, ProbeEnergy()], methods=["xssab"], progress=steps.append
    )
    assert sum(record.protocol == "test_energy" for record in added.records) == 24 * 3
    assert steps[-1].done == steps[-1].total
    assert steps[-1].remaining == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"threshold": 0.5}, "threshold was 0.2"),
        ({"options": {"xssab": {"arguments": "for"}}}, "method xssab arguments"),
        ({"regions": "mesh"}, "no face meshes"),
        ({"plan": PlantedPlan(count=14, seed=3)}, "of other plantings"),
    ],
)
def test_another_run_is_refused(
    faces: Path, finished: tuple[Path, Results], change: dict[str, Any], words: str
) -> None:
    before = (finished[0] / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=words):
        judge(faces, finished[0], **change)
    assert (finished[0] / "manifest.json").read_bytes() == before


def test_another_recognizer_or_changed_faces_are_refused(
    faces: Path, finished: tuple[Path, Results], tmp_path: Path
) -> None:
    other = small_recognizer()
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    with pytest.raises(InputError, match="recognizer sha256"):
        judge(faces, finished[0], recognizer=other)
    write_faces(tmp_path / "faces")
    changed = tmp_path / "faces" / PEOPLE[0] / "0.png"
    changed.write_bytes((tmp_path / "faces" / PEOPLE[1] / "0.png").read_bytes())
    with pytest.raises(InputError, match=r"face p00/0\.png was"):
        judge(tmp_path / "faces", finished[0])


def test_failures_are_recorded_and_the_run_goes_on(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Xssab, pair: object) -> torch.Tensor:
        raise RuntimeError("no\nluck")

    options = {"methods": METHODS, "protocols": [Energy()], "limit": 6}
    with monkeypatch.context() as patch:
        patch.setattr(Xssab, "_attribute_pair", broken)
        results = judge(faces, tmp_path, **options)
    assert {(f.method, f.protocol, f.error) for f in results.failures} == {
        ("xssab", "test_energy", "RuntimeError: no luck")
    }
    assert len(results.failures) == 6
    assert {r.method for r in results.records if r.protocol == "test_energy"} == {
        METHODS[1],
        *CHANCE_BASELINES,
    }
    assert len(judge(faces, tmp_path, **options).failures) == 6
    healed = judge(faces, tmp_path, retry_failed=True, **options)
    assert not healed.failures
    assert sum(r.protocol == "test_energy" for r in healed.records) == 6 * 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("where", ["pairs.jsonl", "test_energy/xssab.jsonl", "cost/xssab.jsonl"])
def test_a_full_disk_is_no_fault_of_a_method_and_the_run_goes_on(
    faces: Path, tmp_path: Path, where: str
) -> None:
    options = {"methods": METHODS, "protocols": [Energy()], "limit": 4}
    full = tmp_path / "records" / where
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        judge(faces, tmp_path, **options)
    full.unlink()
    results = judge(faces, tmp_path, **options)
    assert not results.failures
    assert without_cost(results) == without_cost(judge(faces, tmp_path / "anew", **options))


def test_a_line_that_was_cut_short_is_taken_back(tmp_path: Path) -> None:
    """Or the next one would be written behind it, and neither could be read."""
    shard, soft = Shard(tmp_path / "a.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    shard.append({"pair": "a"})
    before, ignored = shard.path.read_bytes(), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 9, soft[1]))
        with pytest.raises(OutputError, match="cannot be written"):
            shard.append({"pair": "b" * 20})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, ignored)
    assert shard.path.read_bytes() == before
    shard.append({"pair": "c"})
    assert list(Shard(shard.path).lines) == ["a", "c"]


def test_a_report_of_no_run_says_so(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"there is no evaluation in .*nothing: run it first"):
        judge(faces, tmp_path / "nothing", protocols=[Energy()], limit=2, only_report=True)


def test_more_pairs_extend_a_run(faces: Path, tmp_path: Path) -> None:
    """Plantings, too, which are not in the order of a smaller plan."""
    options = {"protocols": [Energy(), "planted"]}
    few = judge(faces, tmp_path, limit=4, plan=PlantedPlan(count=6), **options)
    more = judge(faces, tmp_path, limit=8, plan=PlantedPlan(count=12), methods=["xssab"], **options)
    again = judge(faces, tmp_path, limit=4, plan=PlantedPlan(count=6), only_report=True, **options)
    assert len(few.manifest.pairs) == 4
    assert len(more.manifest.pairs) == 8
    assert few.manifest.plantings != more.manifest.plantings[: len(few.manifest.plantings)]
    assert set(few.manifest.plantings) < set(more.manifest.plantings)
    assert without_cost(again) == without_cost(few)
    assert sum(entry.genuine for entry in few.manifest.pairs) == 2
    both = judge(faces, tmp_path, limit=8, plan=PlantedPlan(count=12), only_report=True, **options)
    done, wanted = (len(run.manifest.entries) for run in (few, both))
    assert f"`input_x_gradient` ({done} of {wanted} judgements)" in what_was_run(both)
    assert "not to be compared" not in what_was_run(few)


def test_shards_drop_what_is_torn_and_refuse_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "shard.jsonl"
    shard = Shard(path)
    shard.append({"pair": "a", "measured": []})
    shard.append({"pair": "b", "measured": [["", "ü", 0.1, None]]})
    whole = path.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert list(Shard(path).lines) == ["a"]
        assert path.read_bytes() == whole[: whole.index(b"\n") + 1]
    with pytest.raises(ResultError, match="already has a line"):
        shard.append({"pair": "a"})
    path.write_bytes(whole + whole)
    with pytest.raises(ResultError, match="two lines for the pair 'a'"):
        Shard(path)
    path.write_bytes(b"what\n" + whole)
    with pytest.raises(ResultError, match="line 1, is damaged"):
        Shard(path)


def test_maps_come_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = (rng.standard_normal((5, 4)).astype(np.float32) * 1e-12, np.full((5, 4), np.nan, np.float32))
    cache = MapCache(tmp_path / "maps")
    cache.put("m", "a | b", maps)
    found = cache.get("m", "a | b")
    assert found is not None
    np.testing.assert_array_equal(found, maps)
    assert cache.get("m", "b | a") is None
    next((tmp_path / "maps" / "m").glob("*.npz")).write_bytes(b"PK torn")
    assert cache.get("m", "a | b") is None


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ResultError, match="another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_names_of_protocols_and_methods(faces: Path, tmp_path: Path) -> None:
    for name, make in known_protocols().items():
        protocol = make()
        assert protocol.name == name
        assert protocol.title
        assert json.dumps(protocol.settings(), default=str)
    assert not set(CHANCE_BASELINES) & set(REGISTRY)
    with pytest.raises(UnknownNameError, match="did you mean 'planted'"):
        judge(faces, tmp_path, protocols=["plantet"])
    with pytest.raises(UnknownNameError, match="with options"):
        judge(faces, tmp_path, options={"fggb": {}})
    with pytest.raises(InputError, match="nothing to judge"):
        judge(faces, tmp_path, protocols=[Energy()], limit=0)
