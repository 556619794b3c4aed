"""Requests of many callers, answered together: lanes take what waits, a batch at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from xfr_plugin.asgi.forms import fields_of
from xfr_plugin.asgi.metrics import Metrics
from xfr_plugin.errors import XfrError
from xfr_plugin.service.deployment import Workers
from xfr_plugin.service.errors import ServiceError, as_service_error
from xfr_plugin.service.limits import Limits
from xfr_plugin.service.metrics import counts, times
from xfr_plugin.service.service import ExplanationService
from xfr_plugin.service.serving import respond
from xfr_plugin.service.wire import HEADER, Response

__all__ = ["Batcher", "Done", "Lane", "LaneDiedError", "LocalLane", "Post", "answer_posts"]

_LONGEST_QUEUE = 256
_BUSY = 503


@dataclass(frozen=True)
class Post:
    """A body as it came: its content type, the header `x-xfr-request`, the endpoint, and when it was complete.

    It `may_be_slow` where no other waits for it.
    """

    body: bytes
    content_type: str = ""
    rest: str | None = None
    explain: bool = False
    since: float = field(default_factory=time.monotonic)
    may_be_slow: bool = False


@dataclass(frozen=True)
class Done:
    """The answers to a batch: status and body of each, and what is counted (see `service.metrics`)."""

    answers: list[tuple[int, bytes]]
    counts: list[tuple[str, str, int]]
    times: dict[str, float]


class LaneDiedError(XfrError):
    """A worker ended; `late` if it was because its work took too long."""

    def __init__(self, late: bool = False) -> None:
        super().__init__("a worker process ended")
        self.late = late


class Lane(Protocol):
    """What answers a batch at a time; called from a thread of its own."""

    def start(self) -> dict[str, Any]:
        """Make it ready, again if it has died; returns the versions of what answers."""
        ...

    def ask(self, posts: Sequence[Post]) -> Done:
        """Answer; raises LaneDiedError."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class LocalLane:
    """A service in this process."""

    def __init__(self, service: ExplanationService) -> None:
        self.service = service

    def start(self) -> dict[str, Any]:
        """Nothing is to be done."""
        return self.service.versions.model_dump()

    def ask(self, posts: Sequence[Post]) -> Done:
        """Answer in this thread."""
        return answer_posts(self.service, posts)

    def stop(self) -> None:
        """Nothing is to be done."""


def answer_posts(service: ExplanationService, posts: Sequence[Post]) -> Done:
    """Answer a batch by a service: each post has an answer or error of its own."""
    fields = [fields_of(post.body, post.content_type) for post in posts]
    headers: list[dict[str, Any]] = [{HEADER: post.rest, "explain": str(post.explain)} for post in posts]
    read = [place for place, found in enumerate(fields) if not isinstance(found, ServiceError)]
    waited = [time.monotonic() - posts[place].since for place in read]
    items = [found for found in fields if not isinstance(found, ServiceError)]
    slow = all(post.may_be_slow for post in posts)
    answered = iter(respond(service, items, [headers[place] for place in read], waited, lambda: slow))
    responses = [_refusal(found) if isinstance(found, ServiceError) else next(answered) for found in fields]
    answers = [(response.status, response.body.encode()) for response in responses]
    return Done(answers, list(counts(responses)), times(responses))


def _refusal(error: ServiceError) -> Response:
    body = error.body()
    return Response(error.status, body.model_dump_json(), (body,))


@dataclass(eq=False)
class _Job:
    post: Post
    answer: asyncio.Future[tuple[int, bytes]]
    died: bool = False  # a worker that was at it


class Batcher:
    """Hands what waits to lanes.

    A lane that dies is started again. What it was at is asked once more, each request alone, so that one that ends
    workers takes no others with it. So is what is slow: one lane, if there are several, is kept free of what may be.

    Args:
        lanes: that answer.
        workers: how many requests they take at once, and how long they wait for more.
        limits: of a request.
    """

    def __init__(self, lanes: Sequence[Lane], workers: Workers, limits: Limits) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.versions: dict[str, Any] = {}
        self._lanes, self._workers = lanes, workers
        self._waiting: deque[_Job] = deque()
        self._outcasts: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._threads = ThreadPoolExecutor(len(lanes), "lane")
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = self._slow = self._busy = 0
        # beyond its deadline and that of a worker nobody needs an answer
        self._longest = limits.deadline_ms and limits.deadline_ms / 1000 + workers.response_timeout_s

    @property
    def ready(self) -> bool:
        """Whether a lane can answer."""
        return self._ready > 0

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._waiting) + len(self._outcasts)

    async def open(self) -> None:
        """Start all lanes; returns when all are ready.

        Raises:
            XfrError: one does not work.
        """
        started = await asyncio.gather(*(self._on_thread(lane.start) for lane in self._lanes))
        self.versions, self._ready = started[0], len(started)
        self._tasks = [asyncio.create_task(self._serve(lane)) for lane in self._lanes]

    async def close(self) -> None:
        """End all lanes. What still waits is told that the server is busy."""
        for task in self._tasks:
            task.cancel()
        self._ready = 0
        for lane in self._lanes:
            lane.stop()
        for job in (*self._waiting, *self._outcasts):
            self._refuse(job, ServiceError("busy", "the server stops: ask again"))
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, post: Post) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            ServiceError: there is none.
        """
        if self.queued >= _LONGEST_QUEUE:
            raise ServiceError("busy", "too many requests wait: ask again")
        job = _Job(post, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._wake.set()
        try:
            return await asyncio.wait_for(job.answer, self._longest)
        except asyncio.TimeoutError as error:
            raise ServiceError("deadline", "no worker had time for this request: ask again") from error

    async def _serve(self, lane: Lane) -> None:
        while True:
            jobs = await self._take()
            slow = len(jobs) == 1 and self._may_be_slow()
            self._slow += slow
            self._busy += 1
            end = asyncio.get_running_loop().call_later(self._workers.response_timeout_s, lane.stop)
            try:
                done = await self._on_thread(lane.ask, [replace(job.post, may_be_slow=slow) for job in jobs])
            except LaneDiedError as error:
                self._after_death(jobs, error.late or end.when() <= asyncio.get_running_loop().time())
                await self._revive(lane)
                continue
            except Exception as error:  # the others' answers do not depend on it
                for job in jobs:
                    self._refuse(job, as_service_error(error))
                continue
            finally:
                end.cancel()
                self._slow -= slow
                self._busy -= 1
                self._wake.set()
            self.metrics.add(done.counts, done.times)
            for job, answer in zip(jobs, done.answers, strict=True):
                if answer[0] == _BUSY and not slow:
                    self._again(job)
                elif not job.answer.done():
                    job.answer.set_result(answer)

    async def _take(self) -> list[_Job]:
        """Wait for requests: one that comes again, alone, or this lane's share of the others."""
        while True:
            while not (self._waiting or (self._outcasts and self._may_be_slow())):
                self._wake.clear()
                await self._wake.wait()
            if self._outcasts and self._may_be_slow():
                return [self._outcasts.popleft()]
            if len(self._waiting) < self._workers.batch_size:
                await asyncio.sleep(self._workers.batch_delay_ms / 1000)
            idle = max(len(self._lanes) - self._busy, 1)  # this one too
            count = min(-(-len(self._waiting) // idle), self._workers.batch_size)
            if count:
                return [self._waiting.popleft() for _ in range(count)]

    def _may_be_slow(self) -> bool:
        return self._slow < max(len(self._lanes) - 1, 1)

    def _after_death(self, jobs: list[_Job], late: bool) -> None:
        self._ready -= 1
        self.metrics.deaths += 1
        for job in jobs:
            if late and (job.died or len(jobs) == 1):
                self._refuse(job, ServiceError("deadline", "the worker did not answer in time and was ended"))
            elif job.died:
                self._refuse(job, ServiceError("internal", "two workers ended at this request: ask again"))
            else:
                job.died = True
                self._again(job)

    def _again(self, job: _Job) -> None:
        self._outcasts.append(job)
        self._wake.set()

    async def _revive(self, lane: Lane) -> None:
        while not await self._started(lane):
            await asyncio.sleep(1.0)
        self._ready += 1

    async def _started(self, lane: Lane) -> bool:
        try:
            await self._on_thread(lane.start)
        except (XfrError, OSError):  # of the machine, which may have no room for a process now
            return False
        return True

    def _refuse(self, job: _Job, error: ServiceError) -> None:
        if not job.answer.done():
            job.answer.set_exception(error)

    async def _on_thread(self, work: Any, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
