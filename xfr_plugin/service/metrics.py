"""What is counted: times, decisions, errors by kind, sizes of batches. Nothing about anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xfr_plugin.service.answers import Answer
from xfr_plugin.service.wire import Response

__all__ = ["COUNTERS", "GAUGES", "counts", "record", "times"]

COUNTERS = ("XfrAnswers", "XfrErrors", "XfrExplanations", "XfrBatches")
"""Counters, each with the dimension `Kind`: match or no_match, kind of error, method, size of a batch."""

GAUGES = {"XfrStageTime": "ms"}
"""Gauges and their units; `Kind` of a time is its stage."""


@dataclass(frozen=True)
class _Dimension:
    """Name and value, as TorchServe's own class has them."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, str]:
        """As TorchServe writes it."""
        return {"Name": self.name, "Value": self.value}


def counts(responses: Sequence[Response]) -> Iterator[tuple[str, str, int]]:
    """Metric, kind and number of what happened in a batch."""
    replies = [reply for response in responses for reply in response.replies]
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    kinds: dict[str, list[str]] = {
        "XfrAnswers": ["match" if answer.decision.match else "no_match" for answer in answers],
        "XfrErrors": [reply.code for reply in replies if not isinstance(reply, Answer)],
        "XfrExplanations": [answer.explanation.method for answer in answers if answer.explanation],
        "XfrBatches": [str(len(replies))],
    }
    for metric, found in kinds.items():
        for kind, number in Counter(found).items():
            yield metric, kind, number


def times(responses: Sequence[Response]) -> dict[str, float]:
    """Milliseconds by stage, the longest in the batch."""
    longest: dict[str, float] = {}
    for response in responses:
        for reply in response.replies:
            if isinstance(reply, Answer):
                for stage, value in reply.timings_ms.items():
                    longest[stage] = max(longest.get(stage, 0.0), value)
    return longest


def record(sink: Any, responses: Sequence[Response]) -> None:
    """Add a batch to the metrics object of TorchServe's context: a few lines a batch, whatever its size."""
    for metric, kind, number in counts(responses):
        sink.add_counter(metric, number, dimensions=[_Dimension("Kind", kind)])
    for stage, value in times(responses).items():
        sink.add_time("XfrStageTime", round(value, 3), dimensions=[_Dimension("Kind", stage)])
