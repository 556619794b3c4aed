"""Ray: what is found is what one machine finds, also when a worker is killed, and another engine goes on with it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers.bulk_faces import METHODS, explain_all, write_list
from helpers.evaluation_faces import judge, write_faces

ray = pytest.importorskip("ray", reason="the engine needs Ray: pip install 'xfr-plugin[ray]'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # warnings of Ray are its own


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers on this machine, who import what this process imports."""
    import sys

    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    yield
    ray.shutdown()


def test_a_killed_worker_costs_nothing(cluster: None, tmp_path: Path) -> None:
    write_list(tmp_path)
    killed: list[int] = []
    killer = threading.Thread(target=_kill_an_actor, args=(killed,))
    killer.start()
    found = explain_all(tmp_path, tmp_path / "run", engine="ray", workers=2)
    killer.join()
    assert killed
    expected = explain_all(tmp_path, tmp_path / "other")
    assert found.manifest.explained == expected.manifest.explained
    assert found.failures() == []
    for method in METHODS:
        ours, theirs = found.explanations(method), expected.explanations(method)
        assert ours.column("pair").to_pylist() == theirs.column("pair").to_pylist()
        for mine, other in zip(ours.to_pylist(), theirs.to_pylist(), strict=True):
            evidence = ([region["evidence"] for region in row["regions"]] for row in (mine, other))
            np.testing.assert_allclose(*evidence, rtol=1e-4, atol=1e-6)
    again = explain_all(tmp_path, tmp_path / "run", engine="local")  # the same folder, by another engine
    assert again.manifest == found.manifest


def test_faces_are_judged_as_in_one_process(cluster: None, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces")
    killed: list[int] = []
    killer = threading.Thread(target=_kill_an_actor, args=(killed,))
    killer.start()
    ours = judge(tmp_path / "faces", tmp_path / "run", engine="ray")
    killer.join()
    assert killed
    theirs = judge(tmp_path / "faces", tmp_path / "other")
    assert ours.facts.keys() == theirs.facts.keys()
    assert not ours.failures
    found, expected = ([r for r in results.records if r.protocol != "cost"] for results in (ours, theirs))
    assert [r[:4] for r in found] == [r[:4] for r in expected]
    values = ([r.value for r in records] for records in (found, expected))
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)
    again = judge(tmp_path / "faces", tmp_path / "run")  # the same folder, by another engine
    assert again.records == ours.records


def _kill_an_actor(killed: list[int]) -> None:
    """Kill the first process of this cluster that holds a model, as soon as there is one."""
    deadline = time.monotonic() + 300
    while not killed and time.monotonic() < deadline:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "".join(process.cmdline()).startswith("ray::MapWorker"):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.05)
