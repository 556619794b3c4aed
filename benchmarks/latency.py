"""Time from two photographs to the explanation, by stage and method, with each recognizer that is at hand.

    python benchmarks/latency.py [--repeats 5]

The photographs are scikit-image's astronaut and a mirrored, darkened copy (512×512). Medians, in milliseconds, of
repeated calls in one process; the recognizer is loaded once.
"""

from __future__ import annotations

import argparse
import statistics
import warnings

import torch
from rich.console import Console
from rich.table import Table
from skimage import data

import xfr_plugin
from xfr_plugin.attr import METHODS
from xfr_plugin.cli.demonstration import mirrored_and_darkened
from xfr_plugin.errors import WeightsError

STAGES = ("faces", "verify", "explain")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", xfr_plugin.FaceWarning)
    photo = data.astronaut()
    copy = mirrored_and_darkened(photo, None)
    table = Table("recognizer", "method", *(f"{stage} (ms)" for stage in STAGES), "all (ms)")
    for name in ("xfr_compact128", "mobilefacenet_ms1m"):
        try:
            recognizer = xfr_plugin.load_recognizer(name, device=arguments.device)
        except WeightsError:
            continue
        for method in METHODS:
            runs = [
                xfr_plugin.explain(photo, copy, recognizer=recognizer, method=method).timings
                for _ in range(arguments.repeats + 1)
            ][1:]  # the first call warms up
            medians = [statistics.median(1e3 * run[stage] for run in runs) for stage in STAGES]
            total = statistics.median(1e3 * sum(run.values()) for run in runs)
            table.add_row(name, method, *(f"{value:.0f}" for value in medians), f"{total:.0f}")
    console = Console(width=100)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.device}")
    console.print(table)


if __name__ == "__main__":
    main()
