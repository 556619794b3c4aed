"""Engines: a job that kills its worker takes no other along, and nobody waits for jobs that are given up."""

from __future__ import annotations

import time

import psutil
import pytest
from helpers.deadly_jobs import DeadlyJob, Echo, EndlessJob

from xfr_plugin.base.engines import LocalEngine

pytestmark = pytest.mark.slow


def test_a_job_that_kills_its_worker_fails_and_no_other() -> None:
    engine = LocalEngine(Echo(), workers=2)
    found = {job.number: answer for job, answer in engine.results([DeadlyJob(n, n == 3) for n in range(9)])}
    engine.close()
    assert found.pop(3).startswith("the worker process died of it")
    assert found == {number: number for number in range(9) if number != 3}


def test_who_interrupts_a_run_does_not_wait_for_its_jobs() -> None:
    engine = LocalEngine(Echo(), workers=2)
    results = engine.results([EndlessJob(number, number > 0) for number in range(9)])
    assert next(results)[1] == 0
    children = psutil.Process().children()
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 600, "the jobs take an hour"
    alive = [child for child in children if child.is_running()]
    assert not any("spawn_main" in " ".join(child.cmdline()) for child in alive)
