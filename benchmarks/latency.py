"""Time from two photographs to the explanation, by stage and method, with each recognizer that is at hand.

    python benchmarks/latency.py [--repeats 5] [--methods leave_one_out,xssab] [--threads 2]

The photographs are scikit-image's astronaut and a mirrored, darkened copy (512×512). Medians, in milliseconds, of
repeated calls in one process; the recognizer is loaded once. A decision is `faces` and `verify`; `save` writes the
document and the picture.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from skimage import data

import xfr_plugin
from xfr_plugin.attr import METHODS
from xfr_plugin.cli.demonstration import mirrored_and_darkened
from xfr_plugin.errors import WeightsError
from xfr_plugin.recognition import Recognizer

STAGES = ("faces", "verify", "explain")


def timings(folder: str, photos: tuple[Any, Any], recognizer: Recognizer, method: str) -> dict[str, float]:
    """Seconds by stage."""
    explanation = xfr_plugin.explain(*photos, recognizer=recognizer, method=method)
    start = time.perf_counter()
    explanation.save(folder, method)
    return {**explanation.timings, "save": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", help="names with commas; all, if left out")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", xfr_plugin.FaceWarning)
    photo = data.astronaut()
    photos = (photo, mirrored_and_darkened(photo, None))
    stages = (*STAGES, "save")
    table = Table("recognizer", "method", *(f"{stage} (ms)" for stage in stages), "all but save (ms)")
    for name in ("xfr_compact128", "mobilefacenet_ms1m"):
        try:
            recognizer = xfr_plugin.load_recognizer(name, device=arguments.device)
        except WeightsError:
            continue
        for method in arguments.methods.split(",") if arguments.methods else METHODS:
            with tempfile.TemporaryDirectory() as folder:
                count = arguments.repeats + 1  # the first call warms up
                runs = [timings(folder, photos, recognizer, method) for _ in range(count)][1:]
            medians = [statistics.median(1e3 * run[stage] for run in runs) for stage in stages]
            total = statistics.median(1e3 * sum(run[stage] for stage in STAGES) for run in runs)
            table.add_row(name, method, *(f"{value:.0f}" for value in medians), f"{total:.0f}")
    console = Console(width=100)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.device}")
    console.print(table)


if __name__ == "__main__":
    main()
