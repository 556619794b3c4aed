"""Progress of long calls from Python, in a terminal and in a notebook alike."""

from __future__ import annotations

from typing import Any

from xfr_plugin.base.quiet import ignoring

__all__ = ["ProgressBar"]


class ProgressBar:
    """A bar that `compare`, `batch` and `evaluate` fill, one for each kind of work.

    A widget in notebooks that have ipywidgets, and elsewhere text on standard error.

    Example:
        >>> from xfr_plugin import ProgressBar, compare
        >>> compare("a.jpg", "b.jpg", progress=ProgressBar())
    """

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, *told: Any) -> None:
        """Take what is being done, how much of it is, and out of how much: as arguments, or as one tuple of them."""
        what, done, total = (told if len(told) > 1 else told[0])[:3]
        if self._bar is None or self._bar.total != total:
            self.close()
            self._bar = _bar(total)
        self._bar.set_description(str(what), refresh=False)
        self._bar.n = done
        self._bar.refresh()
        if done >= total:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is. It is called by itself when all is done."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _bar(total: int) -> Any:
    from tqdm.std import TqdmWarning

    with ignoring(TqdmWarning):  # that there are no widgets
        from tqdm.auto import tqdm
    return tqdm(total=total)
