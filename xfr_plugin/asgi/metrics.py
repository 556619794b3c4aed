"""What the shell counts, as Prometheus reads it. The names that start with Xfr are those of the other shell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from xfr_plugin.service.metrics import COUNTERS

__all__ = ["Metrics"]


class Metrics:
    """Counts since the start. Used from one thread.

    Attributes:
        deaths: of workers.
        statuses: of HTTP responses.
        seconds: from the end of a body to its answer, added up, and
        answered: how many.
    """

    def __init__(self) -> None:
        self.deaths = 0
        self.statuses: Counter[int] = Counter()
        self.seconds, self.answered = 0.0, 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._times: dict[str, float] = {}

    def add(self, counts: Sequence[tuple[str, str, int]], times: dict[str, float]) -> None:
        """Take note of a batch, see `service.metrics`."""
        for metric, kind, number in counts:
            self._counts[metric, kind] += number
        self._times.update(times)

    def text(self, queued: int, ready: int) -> str:
        """In Prometheus' text format."""
        lines = [f"# TYPE {name} counter" for name in COUNTERS]
        lines += [f'{metric}{{Kind="{kind}"}} {n}' for (metric, kind), n in sorted(self._counts.items())]
        lines += ["# TYPE XfrStageTime gauge"]
        lines += [f'XfrStageTime{{Kind="{kind}"}} {value:.3f}' for kind, value in sorted(self._times.items())]
        lines += ["# TYPE xfr_responses counter"]
        lines += [f'xfr_responses{{status="{status}"}} {n}' for status, n in sorted(self.statuses.items())]
        lines += [
            *("# TYPE xfr_answer_seconds summary", f"xfr_answer_seconds_sum {self.seconds:.3f}"),
            f"xfr_answer_seconds_count {self.answered}",
            *("# TYPE xfr_worker_deaths counter", f"xfr_worker_deaths {self.deaths}"),
            *("# TYPE xfr_queued gauge", f"xfr_queued {queued}"),
            *("# TYPE xfr_ready gauge", f"xfr_ready {ready}"),
        ]
        return "\n".join(lines) + "\n"
