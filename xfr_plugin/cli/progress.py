"""Progress of long work: a bar where somebody looks, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xfr_plugin.cli.codes import EXIT_STOPPED, Ended
from xfr_plugin.cli.output import terminal

__all__ = ["Show", "duration", "progress_bar"]

Show: TypeAlias = Callable[[str, int, int, float | None], None]
"""Takes what is being done, how much of it is, out of how much, and the seconds that are left, if they are known."""

_LINES = 20


@contextmanager
def progress_bar(is_shown: bool, stopped: str) -> Iterator[Show]:
    """Show how work goes on; `stopped` is said when it is interrupted.

    Where nobody looks, there are some twenty lines for each kind of work.
    """
    console = terminal(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not is_shown or not console.is_terminal,
    )
    task = bar.add_task("starting", total=None, left="")
    said: dict[str, int] = {}

    def show(what: str, done: int, total: int, remaining: float | None) -> None:
        left = "" if remaining is None else f"about {duration(remaining)} left"
        bar.update(task, description=what, completed=done, total=total, left=left)
        share = _LINES * done // max(total, 1)
        if is_shown and not console.is_terminal and share != said.get(what, 0):
            said[what] = share
            console.print(f"{what}: {done} of {total} {left}".rstrip())

    try:
        with bar:
            yield show
    except KeyboardInterrupt as interrupt:
        console.print(stopped)
        raise Ended(EXIT_STOPPED) from interrupt


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
