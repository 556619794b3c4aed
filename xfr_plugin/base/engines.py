"""Who does the jobs of a run: this process, processes on this machine, or a Ray cluster.

A job says in few bytes what is to be done; `load` reads what it needs from the disk, where the run was started. Only
the process that was started writes what comes back.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeAlias, TypeVar

import torch

from xfr_plugin.base.processes import cores, end_processes, pickled, started_processes
from xfr_plugin.errors import InputError, UnknownNameError

__all__ = ["ENGINES", "Engine", "Job", "LocalEngine", "Task", "opened"]

_WAITING = 2
"""Jobs that are handed out for each worker, so that memory does not grow with their number."""

_DEATHS = 2
"""A job during which alone so many workers have died is not tried again."""


class Job(Protocol):
    """What is done at once; it can be hashed."""

    def load(self) -> Any:
        """What a worker takes: with what it needs from the disk of the machine that the run was started on."""

    def failed(self, why: str, /) -> Any:
        """What comes back, where the job could not be done."""


Worker: TypeAlias = Callable[[Any], Any]
"""Does jobs, one at a time: from what `Job.load` gives to what comes back."""


class Task(Protocol):
    """What all workers of a run share; it can be sent to other processes, unless its recognizer cannot."""

    @property
    def name(self) -> str:
        """Of the recognizer."""

    @property
    def device(self) -> torch.device:
        """Of the recognizer."""

    def worker(self) -> Worker:
        """A worker, in the process that is to have it."""


AnyJob = TypeVar("AnyJob", bound=Job)


class Engine(Protocol):
    """What does jobs."""

    def results(self, jobs: Sequence[AnyJob], /) -> Iterator[tuple[AnyJob, Any]]:
        """Jobs with what came of them, in any order, each as soon as it is done."""

    def close(self) -> None:
        """End the workers."""


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
        self.workers = workers or (cores() if task.device.type == "cpu" else 1)
        self.task, self._named = task, workers is not None
        self._own: Worker | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._deaths: dict[Job, int] = {}

    def close(self) -> None:
        """End the processes; what is not done yet is not done."""
        if self._pool is not None:
            end_processes(self._pool)
            self._pool = None

    def results(self, jobs: Sequence[AnyJob]) -> Iterator[tuple[AnyJob, Any]]:
        """See `Engine`. A single job is done here, unless processes are there already."""
        if self.workers == 1 or (self._pool is None and (len(jobs) <= 1 or not self._sendable())):
            own = self._own = self._own or self.task.worker()
            yield from ((job, own(job.load())) for job in jobs)
            return
        waiting, suspects = deque(jobs), deque[AnyJob]()
        while waiting or suspects:
            yield from self._drained(suspects or waiting, suspects)

    def _sendable(self) -> bool:
        try:
            pickled(self.task, self.task.name)
        except InputError:
            if self._named:
                raise
            return False
        return True

    def _drained(self, queue: deque[AnyJob], suspects: deque[AnyJob]) -> Iterator[tuple[AnyJob, Any]]:
        """Do what is in the queue; what is under way when a worker dies becomes suspect."""
        alone = queue is suspects
        running: dict[Future[Any], AnyJob] = {}
        pool = self._pool = self._pool or self._started()
        try:
            while queue or running:
                while queue and len(running) < (1 if alone else _WAITING * self.workers):
                    running[pool.submit(_work, queue[0])] = queue[0]
                    queue.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            self.close()
            for future, job in running.items():
                if future.exception() is None:
                    yield job, future.result()
                else:
                    yield from self._suspected(job, alone, suspects)

    def _suspected(self, job: AnyJob, alone: bool, suspects: deque[AnyJob]) -> Iterator[tuple[AnyJob, Any]]:
        self._deaths[job] = self._deaths.get(job, 0) + alone
        if self._deaths[job] >= _DEATHS:
            yield job, job.failed("the worker process died of it: out of memory, or a fault of a library")
        else:
            suspects.append(job)

    def _started(self) -> ProcessPoolExecutor:
        task = pickled(self.task, self.task.name)
        return started_processes(self.workers, _start, task, max(1, cores() // self.workers))


_WORKER: list[Worker] = []
"""The worker of this process, where it is one of a pool."""


def _start(task: bytes, threads: int) -> None:
    torch.set_num_threads(threads)
    _WORKER.append(pickle.loads(task).worker())


def _work(job: Job) -> Any:
    return _WORKER[0](job.load())


class RayEngine:
    """A Ray cluster: the one that Ray is connected to, or one that is started on this machine."""

    def __init__(self, task: Task, workers: int | None) -> None:
        self.task, self.workers = pickled(task, task.name), workers

    def results(self, jobs: Sequence[AnyJob]) -> Iterator[tuple[AnyJob, Any]]:
        """See `Engine`."""
        from xfr_plugin.base.on_ray import run_on_ray

        return run_on_ray(self.task, jobs, self.workers) if jobs else iter(())

    def close(self) -> None:
        """Nothing stays but the cluster, which is Ray's to end."""


ENGINES: dict[str, Callable[[Task, int | None], Engine]] = {"local": LocalEngine, "ray": RayEngine}
"""By name."""
