"""The pairs of a run, judged in several processes: each records its pairs as a run in one process does."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, TypeAlias

import torch

from xfr_plugin.base.processes import cores, pickled, started_processes
from xfr_plugin.errors import ResultError
from xfr_plugin.evaluation.pairs import PairEntry

if TYPE_CHECKING:
    from xfr_plugin.evaluation.engine import Engine

__all__ = ["Worked", "steps_in_processes"]

Worked: TypeAlias = tuple[str, float | None]
"""A method that is done with a pair, and the seconds that it took; None if there was nothing to do."""

_WAITING = 2
"""Pairs handed out for each process."""


def steps_in_processes(engine: Engine, order: Sequence[PairEntry], workers: int) -> Iterator[Worked]:
    """Do the pairs of a run, each in one of so many processes, which share nothing but the folder.

    Raises:
        InputError: the recognizer cannot be sent to other processes.
        ResultError: a process died.
    """
    own = pickled(engine, engine.setting.recognizer.name)
    waiting, running = deque(order), set[Future[list[Worked]]]()
    with started_processes(workers, _start, own, max(1, cores() // workers)) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < _WAITING * workers:
                    running.add(pool.submit(_judged, waiting.popleft()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        except BrokenProcessPool as error:
            raise ResultError(
                "a worker process died: out of memory, or a fault of a library; the same call goes on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_ENGINE: list[Engine] = []
"""The engine of this process, where it is one of several."""


def _start(engine: bytes, threads: int) -> None:
    torch.set_num_threads(threads)
    _ENGINE.append(pickle.loads(engine))


def _judged(entry: PairEntry) -> list[Worked]:
    return list(_ENGINE[0].judged(entry))
