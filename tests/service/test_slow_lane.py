"""One worker process is kept free of slow requests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xfr_plugin.service.slow_lane import SlowLane


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 1), (4, 3)])
def test_one_worker_stays_free(tmp_path: Path, workers: int, most: int) -> None:
    lanes = [SlowLane(tmp_path, workers) for _ in range(4)]
    with lanes[0].batch(), lanes[1].batch(), lanes[2].batch(), lanes[3].batch():
        assert [lane.enter() for lane in lanes].count(True) == most
    with lanes[3].batch():
        assert lanes[3].enter(), "the others have given it back"


def test_servers_do_not_keep_each_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = SlowLane(tmp_path, 2), SlowLane(tmp_path / "other", 2)
    with one.batch(), other.batch():
        assert one.enter()
        assert other.enter()


def test_a_worker_that_is_killed_gives_it_back(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from xfr_plugin.service.slow_lane import SlowLane\n"
        "lane = SlowLane(pathlib.Path(sys.argv[1]), 2)\n"
        "with lane.batch():\n print(lane.enter(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "True"
        own = SlowLane(tmp_path, 2)
        with own.batch():
            assert not own.enter()
            process.kill()
            process.wait()
            assert own.enter()
