"""The training log: one JSON line a validation, and a picture of the curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from xfr_plugin.base.files import write_text

__all__ = ["Record", "curve_figure", "write_log"]

Record = dict[str, Any]
"""One line of the log: `epoch`, `step`, `learning_rate`, `seconds`; figures are named `train/…`, `val/…`."""


def write_log(path: Path, records: list[Record]) -> None:
    """Write the whole log, so that a resumed run never holds lines of what was lost in between."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def curve_figure(records: list[Record]) -> Figure:
    """Draw every `train/…` and `val/…` figure against the epoch, one panel a figure."""
    names = sorted({key for record in records for key in record if "/" in key})
    rows = max(1, -(-len(names) // 3))
    figure = Figure(figsize=(12, 2.6 * rows))
    figure.subplots_adjust(0.05, 0.16 / rows, 0.99, 1 - 0.1 / rows, hspace=0.55, wspace=0.18)
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        drawn = [(record["epoch"], record[name]) for record in records if name in record]
        panel.plot([x for x, _ in drawn], [y for _, y in drawn], marker=".", linewidth=1)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("epoch", fontsize=8)
        panel.grid(alpha=0.3)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    return figure
