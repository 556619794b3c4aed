"""Who does the jobs of a run: this process, processes on this machine, or a Ray cluster."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from xfr_plugin.base.processes import cores, end_processes, pickled, started_processes
from xfr_plugin.bulk.work import Job, Task, Worker
from xfr_plugin.errors import InputError, UnknownNameError

__all__ = ["ENGINES", "Done", "Engine", "opened"]

Done: TypeAlias = tuple[Job, Any]
"""A job and its table."""

_WAITING = 2
"""Jobs that are handed out for each worker, so that memory does not grow with their number."""

_DEATHS = 2
"""A job during which alone so many workers have died is not tried again."""


def opened(engine: str, task: Task, workers: int | None) -> Engine:
    """An engine, to be used in a `with` statement.

    Args:
        engine: one of `ENGINES`.
        task: what the workers share.
        workers: how many, each with a copy of the model; None for one a core, or one on another device.

    Raises:
        UnknownNameError: no such engine.
    """
    if engine not in ENGINES:
        raise UnknownNameError.of("engine", engine, ENGINES)
    return ENGINES[engine](task, workers)


class Engine(Protocol):
    """What does jobs."""

    def results(self, jobs: Sequence[Job], /) -> Iterator[Done]:
        """Jobs with their tables, in any order, each as soon as it is done."""

    def close(self) -> None:
        """End the workers."""


class LocalEngine:
    """This process, or processes on this machine, which stay until they are closed.

    When a process dies, nobody knows of which job. Those that were under way are then done one at a time, so that a
    job that kills its worker is found, and ends as rows with that reason.

    A recognizer that cannot be sent to other processes, as a function that holds a session, is asked in this one,
    unless several workers were named.

    Raises:
        InputError: several workers are named, and the recognizer cannot be sent to other processes.
    """

    def __init__(self, task: Task, workers: int | None) -> None:
        self.workers = workers or (cores() if task.recognizer.device.type == "cpu" else 1)
        self.task, self._named = task, workers is not None
        self._threads = max(1, cores() // self.workers)
        self._own = Worker(task)
        self._pool: ProcessPoolExecutor | None = None
        self._deaths: dict[Job, int] = {}

    def close(self) -> None:
        """End the processes; what is not done yet is not done."""
        if self._pool is not None:
            end_processes(self._pool)
            self._pool = None

    def results(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """See `Engine`. A single job is done here, unless processes are there already."""
        if self.workers == 1 or (self._pool is None and (len(jobs) <= 1 or not self._sendable())):
            yield from ((job, self._own(job.load())) for job in jobs)
            return
        waiting, suspects = deque(jobs), deque[Job]()
        while waiting or suspects:
            yield from self._drained(suspects or waiting, suspects)

    def _sendable(self) -> bool:
        try:
            pickled(self.task, self.task.recognizer.name)
        except InputError:
            if self._named:
                raise
            return False
        return True

    def _drained(self, queue: deque[Job], suspects: deque[Job]) -> Iterator[Done]:
        """Do what is in the queue; what is under way when a worker dies becomes suspect."""
        alone = queue is suspects
        running: dict[Future[Any], Job] = {}
        pool = self._pool = self._pool or self._started()
        try:
            while queue or running:
                while queue and len(running) < (1 if alone else _WAITING * self.workers):
                    running[pool.submit(_work, queue[0])] = queue[0]
                    queue.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    table = future.result()
                    yield running.pop(future), table
        except BrokenProcessPool:
            self.close()
            for future, job in running.items():
                if future.exception() is None:
                    yield job, future.result()
                else:
                    yield from self._suspected(job, alone, suspects)

    def _suspected(self, job: Job, alone: bool, suspects: deque[Job]) -> Iterator[Done]:
        self._deaths[job] = self._deaths.get(job, 0) + alone
        if self._deaths[job] >= _DEATHS:
            yield job, job.failed("the worker process died of it: out of memory, or a fault of a library")
        else:
            suspects.append(job)

    def _started(self) -> ProcessPoolExecutor:
        task = replace(self.task, threads=self._threads)
        return started_processes(self.workers, _start, pickled(task, task.recognizer.name))


_WORKER: list[Worker] = []
"""The worker of this process, where it is one of a pool."""


def _start(task: bytes) -> None:
    _WORKER.append(Worker(pickle.loads(task)))


def _work(job: Job) -> Any:
    return _WORKER[0](job.load())


class RayEngine:
    """A Ray cluster: the one that Ray is connected to, or one that is started on this machine."""

    def __init__(self, task: Task, workers: int | None) -> None:
        self.task, self.workers = pickled(task, task.recognizer.name), workers

    def results(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """See `Engine`."""
        from xfr_plugin.bulk.on_ray import run_on_ray

        return run_on_ray(self.task, jobs, self.workers) if jobs else iter(())

    def close(self) -> None:
        """Nothing stays but the cluster, which is Ray's to end."""


ENGINES: dict[str, Callable[[Task, int | None], Engine]] = {"local": LocalEngine, "ray": RayEngine}
"""By name."""
