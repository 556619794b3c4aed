"""Time and memory of reconstruction saliency beyond the verification of the pair, by form, batch and recognizer.

    python benchmarks/reconstruction_speed.py [--repeats 9] [--device cpu]

Verification is the forward pass of both faces. Each form is timed with it and beside it in the same run; what is
printed is the median of the differences. Memory is the rise of the process' peak during the explanation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from xfr_plugin import load_recognizer
from xfr_plugin.attr import ReconstructionSaliency, Xssab
from xfr_plugin.base.memory import measured_peak
from xfr_plugin.errors import WeightsError

FORMS: dict[str, dict[str, Any]] = {
    "regional, atlas (the default)": {},
    "regional, face": {"source": "face"},
    "paper, atlas": {"variant": "paper"},
    "paper, face (128 ablations a face)": {"variant": "paper", "source": "face"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    table = Table("recognizer", "form", "pairs", "ms a pair beyond verification", "verification", "peak MiB")
    for name in ("xfr_compact128", "mobilefacenet_ms1m"):
        try:
            recognizer = load_recognizer(name, device=options.device)
        except WeightsError:
            continue
        methods = {form: ReconstructionSaliency(recognizer, **settings) for form, settings in FORMS.items()}
        for form, method in {**methods, "(xSSAB, for comparison)": Xssab(recognizer)}.items():
            for pairs in (1, 16):
                images = torch.rand(2, pairs, 3, *recognizer.input_size, device=options.device)
                both = torch.cat((images[0], images[1]))
                alone = timed(lambda r=recognizer, x=both: r.embed(x), options.repeats)
                explained = timed(lambda m=method, x=images: m.attribute((x[0], x[1])), options.repeats)
                with measured_peak(recognizer.device) as peak:
                    method.attribute((images[0], images[1]))
                beyond = statistics.median(a - b for a, b in zip(explained, alone, strict=True)) / pairs
                table.add_row(
                    name,
                    form,
                    str(pairs),
                    f"{1e3 * beyond:.1f}",
                    f"{1e3 * statistics.median(alone) / pairs:.1f}",
                    "?" if peak.extra is None else f"{peak.extra / 2**20:.0f}",
                )
    console = Console(width=120)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}")
    console.print(table)


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of repeated calls, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times[1:]


if __name__ == "__main__":
    main()
