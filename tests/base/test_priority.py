"""Slow work gives way to others, and nothing else of the process does."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from xfr_plugin.base.deadlines import check_deadline, until
from xfr_plugin.base.priority import at_low_priority
from xfr_plugin.errors import DeadlineError


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own there")
def test_only_the_work_has_a_low_priority() -> None:
    def own() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before, found = own(), list[int]()
    at_low_priority(lambda: found.append(own()))
    at_low_priority(lambda: found.append(own()))
    assert found == [min(before + 10, 19)] * 2
    assert own() == before


def test_deadlines_around_hold_within() -> None:
    found = []

    def work() -> None:
        try:
            check_deadline()
        except DeadlineError as error:
            found.append(error)

    with until(0.0):
        at_low_priority(work)
    assert len(found) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own there")
def test_work_is_done_where_priorities_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    found = list[int]()
    at_low_priority(lambda: found.append(1))
    assert found == [1]
