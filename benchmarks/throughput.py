"""Pairs a second of `xfr batch`, by engine, method, recognizer and number of cores, and what a million pairs cost.

    python benchmarks/throughput.py --out ../runs/throughput            # all cells; killed, it goes on
    python benchmarks/throughput.py --out ../runs/throughput --short    # a twentieth of the pairs
    python benchmarks/throughput.py --out ../runs/throughput --only-report

LFW's own pairs of View 2 first, then pairs of different people of it, drawn with a seed; aligned crops, but for the
cells that start from photographs (lfw250). Every cell is a process of its own with a new folder: it starts, finds and
embeds each face once, decides all pairs, and explains them, all of which counts. Memory is that of the process and
all its children at once (proportional set size, the highest of samples a quarter of a second apart). Seconds are wall
clock: run it on a machine that does nothing else. Processor time is that of the process and of what it started and
waited for (Ray's actors are not among them), and hardly depends on what else runs. A cell that was done is not
measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from xfr_plugin.base.files import write_text
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.recognition.zoo import data_root

MILLION = 1_000_000
SHORT = 20
SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Cell:
    """One measurement; no method decides only, and `photos` starts from photographs."""

    engine: str
    workers: int
    recognizer: str
    method: str
    pairs: int
    photos: bool = False

    @property
    def name(self) -> str:
        source = "photos" if self.photos else "crops"
        parts = (self.engine, self.workers, self.recognizer, self.method or "decide", self.pairs, source)
        return "-".join(map(str, parts))


SMALL, LARGE = "xfr_compact128", "mobilefacenet_ms1m"
CELLS = (
    *(Cell("local", workers, SMALL, "", pairs) for workers in (1, 2) for pairs in (1_000, 10_000)),
    Cell("local", 2, LARGE, "", 10_000),
    Cell("local", 2, SMALL, "", 500, photos=True),
    *(Cell("local", workers, SMALL, "leave_one_out", 150) for workers in (1, 2)),
    *(Cell("local", workers, SMALL, "xssab", 1_000) for workers in (1, 2)),
    Cell("local", 2, SMALL, "xssab", 10_000),
    Cell("local", 2, LARGE, "xssab", 500),
    Cell("local", 2, LARGE, "leave_one_out", 60),
    *(Cell("ray", 2, SMALL, method, 1_000) for method in ("", "xssab")),
)
"""Sized for about fifteen minutes of two cores together."""


def drawn_pairs(count: int, photos: bool) -> list[tuple[str, str, int]]:
    """Probe, reference and whether they are one person: LFW's pairs, then drawn ones of different people."""
    root = data_root() / "faces"
    folder = root / ("lfw250" if photos else "lfw112")
    known = [
        (str(pair[0]), str(pair[1]), int(pair[2]))
        for pair in read_pairs(root / "pairs.txt")
        if all((folder / name).is_file() for name in pair[:2])
    ]
    files = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.jpg"))
    random = np.random.default_rng(0)
    while len(known) < count:
        probe, reference = (files[number] for number in random.integers(len(files), size=2))
        if Path(probe).parent != Path(reference).parent:
            known.append((probe, reference, 0))
    return known[:count]


def run_cell(cell: Cell, out: Path) -> None:
    """What is measured, in a process of its own."""
    import torch

    import xfr_plugin

    torch.set_num_threads(1)
    folder = data_root() / "faces" / ("lfw250" if cell.photos else "lfw112")
    results = xfr_plugin.batch(
        out / "pairs.csv",
        out / "run",
        photos=folder,
        methods=[cell.method] if cell.method else [],
        recognizer=cell.recognizer,
        engine=cell.engine,
        workers=cell.workers,
        maps=False,
    )
    print(json.dumps({"failures": results.manifest.failures, "explained": results.manifest.explained}))


def measured(cell: Cell, folder: Path) -> dict[str, object]:
    place = folder / cell.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with open(place / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("probe", "reference", "genuine"))
        writer.writerows(drawn_pairs(cell.pairs, cell.photos))
    command = [sys.executable, __file__, "--out", str(place), "--cell", json.dumps(asdict(cell))]
    start, before, highest = time.perf_counter(), children_seconds(), 0
    with (
        open(place / "log", "w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as run,
    ):
        while run.poll() is None:
            highest = max(highest, memory_of(run.pid))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - start
        assert run.stdout is not None
        output = run.stdout.read().decode()
    if run.returncode:
        raise SystemExit(f"{cell.name} failed: see {place / 'log'}")
    found = json.loads(output.splitlines()[-1])
    shutil.rmtree(place / "run")
    spent = children_seconds() - before
    return {**asdict(cell), "seconds": seconds, "processor": spent, "memory_mib": highest / 2**20, **found}


def children_seconds() -> float:
    """Processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_of(process: int) -> int:
    """Bytes of a process and all below it; what ends meanwhile counts nothing."""
    try:
        own = Path(f"/proc/{process}/smaps_rollup").read_text()
        children = [
            int(child)
            for thread in Path(f"/proc/{process}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except OSError:
        return 0
    held = next((1024 * int(line.split()[1]) for line in own.splitlines() if line.startswith("Pss:")), 0)
    return held + sum(map(memory_of, children))


def report(results: list[dict[str, object]]) -> None:
    table = Table(
        "recognizer", "method", "from", "engine", "processes", "pairs", "s", "pairs / s",
        "processor (s)", "MiB", "10⁶ pairs, one such machine (h)", "on 10 (h)", "core hours",
    )  # fmt: skip
    for row in results:
        rate = int(str(row["pairs"])) / float(str(row["seconds"]))
        hours, processor = MILLION / rate / 3600, float(str(row["processor"]))
        table.add_row(
            str(row["recognizer"]), str(row["method"] or "decide only"), "photos" if row["photos"] else "crops",
            str(row["engine"]), str(row["workers"]), str(row["pairs"]), f"{float(str(row['seconds'])):.0f}",
            f"{rate:.1f}", f"{processor:.0f}", f"{float(str(row['memory_mib'])):.0f}", f"{hours:.1f}",
            f"{hours / 10:.2f}", f"{processor / int(str(row['pairs'])) * MILLION / 3600:.1f}",
        )  # fmt: skip
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the figures, and of the runs meanwhile"
    )
    parser.add_argument("--short", action="store_true", help=f"a {SHORT}th of the pairs")
    parser.add_argument(
        "--only", default="", help="cells whose names hold this, as local-1-xfr_compact128-decide"
    )
    parser.add_argument("--only-report", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        run_cell(Cell(**json.loads(arguments.cell)), arguments.out)
        return
    results = []
    for cell in CELLS:
        chosen = Cell(**{**asdict(cell), "pairs": max(20, cell.pairs // SHORT)}) if arguments.short else cell
        if arguments.only not in chosen.name:
            continue
        known = arguments.out / f"{chosen.name}.json"
        if not known.is_file() and not arguments.only_report:
            write_text(known, json.dumps(measured(chosen, arguments.out)))
        if known.is_file():
            results.append(json.loads(known.read_text()))
    report(results)


if __name__ == "__main__":
    main()
