"""A batch of requests on its way: each is at the same stage, or has ended with an error of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from xfr_plugin.base.deadlines import until
from xfr_plugin.base.priority import at_low_priority
from xfr_plugin.errors import DeadlineError
from xfr_plugin.service.errors import ServiceError, as_service_error

__all__ = ["Batch", "Clock"]

_BUSY = "others in the batch could not wait for this request: ask again"
T = TypeVar("T")
U = TypeVar("U")


class Clock:
    """The time of one request.

    Args:
        start: moment (`time.perf_counter`) at which it came.
        deadline_ms: milliseconds after which its answer is worth nothing.

    Attributes:
        end: moment of the deadline.
        timings: milliseconds by stage.
    """

    def __init__(self, start: float, deadline_ms: int | None) -> None:
        self.end = float("inf") if deadline_ms is None else start + deadline_ms / 1000
        self.timings: dict[str, float] = {}

    def seconds_left(self) -> float:
        """Time to the deadline; infinite without one."""
        return self.end - time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the milliseconds that the block takes."""
        start = time.perf_counter()
        yield
        self.spent(stage, time.perf_counter() - start)

    def spent(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.timings[stage] = self.timings.get(stage, 0.0) + 1000 * seconds


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Requests of a batch, in their order.

    Attributes:
        clocks: of each.
        values: what the last stage made of each, or why there will be no answer.
    """

    clocks: Sequence[Clock]
    values: Sequence[T | ServiceError]

    def each(
        self,
        stage: Callable[[T], U],
        patience: float = float("inf"),
        may_be_slow: Callable[[Collection[int]], bool] = lambda _: False,
    ) -> Batch[U]:
        """Bring those that are in time through a stage, one by one; an error stays with its request.

        All of them together take `patience` seconds of CPU time, about: who comes when these have passed has a
        quarter of them. What is quick stays quick on a machine that others use too, and is not told to come again.
        Who needs longer is told to come again, or goes on until its deadline, behind what is quick elsewhere,
        if `may_be_slow` says so of the places of all of these.
        """
        values = self.in_time().values
        end = time.thread_time() + patience
        found: list[U | ServiceError] = [
            value
            if isinstance(value, ServiceError)
            else _tried(stage, value, clock.end, max(end, time.thread_time() + patience / 4))
            for clock, value in zip(self.clocks, values, strict=True)
        ]
        slow = {
            place: value
            for place, (value, reply) in enumerate(zip(values, found, strict=True))
            if not isinstance(value, ServiceError) and _is_busy(reply)
        }
        if slow and may_be_slow(slow):

            def at_leisure() -> None:
                for place, value in slow.items():
                    found[place] = _tried(stage, value, self.clocks[place].end, float("inf"))

            at_low_priority(at_leisure)
        return Batch(self.clocks, found)

    def together(
        self,
        stage: Callable[[list[T]], list[U]],
        key: Callable[[T], object] = lambda _: None,
        price: Callable[[T], float] = lambda _: 0.0,
        patience: float = float("inf"),
    ) -> Batch[U]:
        """Bring those that are in time through a stage, all of one key at once, the cheapest first.

        A group is worked on until the last of its deadlines has passed, or the first of the others' by more than
        `patience` seconds: its requests are then told to come again. If the work fails otherwise, each tries
        alone, and keeps its own error.
        """
        made = dict(enumerate(self.in_time().values))
        waiting = [(place, value) for place, value in made.items() if not isinstance(value, ServiceError)]
        groups: dict[object, list[tuple[int, T]]] = {}
        for place, value in waiting:
            groups.setdefault(key(value), []).append((place, value))
        replies: dict[int, U | ServiceError] = {
            place: value for place, value in made.items() if isinstance(value, ServiceError)
        }
        for members in sorted(groups.values(), key=lambda group: price(group[0][1])):
            places = [place for place, _ in members]
            others = [self.clocks[place].end for place, _ in waiting if place not in places]
            last = max(self.clocks[place].end for place in places)
            first = min(others, default=float("inf")) + patience
            found = _tried_together(stage, [value for _, value in members], last, first)
            replies.update(zip(places, found, strict=True))
        return Batch(self.clocks, [replies[place] for place in range(len(self.values))])

    def in_time(self) -> Batch[T]:
        """Those whose deadline has passed have an error instead of their value."""
        late = "the deadline passed before the answer was ready: allow more time, or ask for less"
        values = [
            ServiceError("deadline", late)
            if clock.seconds_left() < 0 and not isinstance(value, ServiceError)
            else value
            for clock, value in zip(self.clocks, self.values, strict=True)
        ]
        return Batch(self.clocks, values)


def _is_busy(reply: object) -> bool:
    return isinstance(reply, ServiceError) and reply.code == "busy"


def _tried(stage: Callable[[T], U], value: T, last: float, cpu_last: float) -> U | ServiceError:
    try:
        with until(last, cpu_last):
            return stage(value)
    except DeadlineError as error:
        if cpu_last - time.thread_time() < last - time.perf_counter():
            return ServiceError("busy", _BUSY)
        return as_service_error(error)
    except Exception as error:
        return as_service_error(error)


def _tried_together(
    stage: Callable[[list[T]], list[U]], values: list[T], last: float, neighbours: float
) -> Sequence[U | ServiceError]:
    end = min(last, neighbours)
    try:
        with until(end):
            return stage(values)
    except DeadlineError as error:
        told = as_service_error(error)
        if neighbours < last:
            told = ServiceError("busy", _BUSY)
        return [told] * len(values)
    except Exception as error:
        if len(values) == 1:
            return [as_service_error(error)]
        return [reply for value in values for reply in _tried_together(stage, [value], last, neighbours)]
