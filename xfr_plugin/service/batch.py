"""A batch of requests on its way: each is at the same stage, or has ended with an error of its own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from xfr_plugin.base.deadlines import until
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
        bodies: of which body each is; those of one body wait for each other, whatever they ask.
    """

    clocks: Sequence[Clock]
    values: Sequence[T | ServiceError]
    bodies: Sequence[int]

    def each(self, stage: Callable[[T], U], patience: float = float("inf")) -> Batch[U]:
        """Bring those that are in time through a stage, one by one; an error stays with its request.

        All of them together take `patience` seconds of CPU time, about: who comes when these have passed has a
        quarter of them, and who needs longer is told to come again. CPU time, so that what is quick stays quick on a
        machine that others use too.
        """
        values = self.in_time().values
        end = time.thread_time() + patience
        found: list[U | ServiceError] = [
            value
            if isinstance(value, ServiceError)
            else _tried(stage, value, clock.end, max(end, time.thread_time() + patience / 4))
            for clock, value in zip(self.clocks, values, strict=True)
        ]
        return Batch(self.clocks, found, self.bodies)

    def together(
        self,
        stage: Callable[[list[T]], list[U]],
        key: Callable[[T], object] = lambda _: None,
        price: Callable[[T], float] = lambda _: 0.0,
        patience: float = float("inf"),
    ) -> Batch[U]:
        """Bring those that are in time through a stage, all of one key at once, the cheapest first.

        A group is worked on until the last of its deadlines has passed, or for `patience` seconds of CPU time for
        each of its requests, which are then told to come again. If the work fails otherwise, each tries alone, and
        keeps its own error.
        """
        groups: dict[object, list[tuple[int, T]]] = {}
        replies: dict[int, U | ServiceError] = {}
        for place, value in enumerate(self.in_time().values):
            if isinstance(value, ServiceError):
                replies[place] = value
            else:
                groups.setdefault(key(value), []).append((place, value))
        for members in sorted(groups.values(), key=lambda group: price(group[0][1])):
            last = max(self.clocks[place].end for place, _ in members)
            found = _tried_together(stage, [value for _, value in members], last, patience)
            replies.update(zip([place for place, _ in members], found, strict=True))
        return Batch(self.clocks, [replies[place] for place in range(len(self.values))], self.bodies)

    def affordable(self, price: Callable[[T], float], patience: float) -> Batch[T]:
        """Those of bodies whose price is more than `patience` are told to come again, but for what costs nothing."""
        prices = [0.0 if isinstance(value, ServiceError) else price(value) for value in self.values]
        of_body: dict[int, float] = defaultdict(float)
        for body, seconds in zip(self.bodies, prices, strict=True):
            of_body[body] += seconds
        values = [
            ServiceError("busy", _BUSY) if seconds and of_body[body] > patience else value
            for value, seconds, body in zip(self.values, prices, self.bodies, strict=True)
        ]
        return Batch(self.clocks, values, self.bodies)

    def busy(self) -> list[int]:
        """Places of those that were told to come again."""
        return [
            place
            for place, value in enumerate(self.values)
            if isinstance(value, ServiceError) and value.code == "busy"
        ]

    def at(self, places: Sequence[int]) -> Batch[T]:
        """Those at these places alone."""
        return Batch(
            [self.clocks[place] for place in places],
            [self.values[place] for place in places],
            [self.bodies[place] for place in places],
        )

    def in_time(self) -> Batch[T]:
        """Those whose deadline has passed have an error instead of their value."""
        late = "the deadline passed before the answer was ready: allow more time, or ask for less"
        values = [
            ServiceError("deadline", late)
            if clock.seconds_left() < 0 and not isinstance(value, ServiceError)
            else value
            for clock, value in zip(self.clocks, self.values, strict=True)
        ]
        return Batch(self.clocks, values, self.bodies)


def _tried(stage: Callable[[T], U], value: T, last: float, cpu_last: float) -> U | ServiceError:
    try:
        with until(last, cpu_last):
            return stage(value)
    except DeadlineError as error:
        return _late(error, last, cpu_last)
    except Exception as error:
        return as_service_error(error)


def _tried_together(
    stage: Callable[[list[T]], list[U]], values: list[T], last: float, patience: float
) -> Sequence[U | ServiceError]:
    cpu_last = time.thread_time() + patience * len(values)
    try:
        with until(last, cpu_last):
            return stage(values)
    except DeadlineError as error:
        return [_late(error, last, cpu_last)] * len(values)
    except Exception as error:
        if len(values) == 1:
            return [as_service_error(error)]
        return [reply for value in values for reply in _tried_together(stage, [value], last, patience)]


def _late(error: DeadlineError, last: float, cpu_last: float) -> ServiceError:
    """Whose time was over first: the neighbours', who waited, or its own."""
    if cpu_last - time.thread_time() < last - time.perf_counter():
        return ServiceError("busy", _BUSY)
    return as_service_error(error)
