"""Pairs a second of `xfr batch`, by engine, method, recognizer and number of processes; and what a million cost.

    python benchmarks/throughput.py --out ../runs/throughput                     # all cells; killed, it goes on
    python benchmarks/throughput.py --out ../runs/throughput --cells decide,ray  # those whose names hold one of these
    python benchmarks/throughput.py --out ../runs/throughput --short             # a twentieth of the pairs
    python benchmarks/throughput.py --out ../runs/throughput --only-report

Pairs of LFW's aligned crops, drawn with a seed among its first 1,000 faces, so that ten times the pairs are pairs of
the same faces; the cells that start from photographs (lfw250) take the first pairs of View 2. Every cell is a
process of its own with a new folder: it starts, finds and embeds each face once, decides all pairs, and explains
them, all of which counts. Memory is that of the process and all its children at once (proportional set size, the
highest of samples a quarter of a second apart). Seconds are wall clock: run it on a machine that does nothing else.
Processor time is that of the process and of what it started and waited for (Ray's actors are not among them), and
hardly depends on what else runs. A cell that was done is not measured again, and is printed as soon as it is known.
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
from typing import Any

import numpy as np

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
FACES = 1_000
CELLS = (
    *(
        Cell("local", workers, recognizer, method, pairs)
        for recognizer, processes in ((SMALL, (2, 1)), (LARGE, (2,)))
        for method in ("", "amortised")
        for pairs in (1_000, 10_000)
        for workers in processes
    ),
    *(
        Cell("local", workers, SMALL, "leave_one_out", pairs)
        for pairs in (1_000, 10_000)
        for workers in (2, 1)
    ),
    Cell("local", 2, LARGE, "leave_one_out", 1_000),
    Cell("local", 2, SMALL, "", 500, photos=True),
    *(Cell("ray", 2, SMALL, method, 1_000) for method in ("", "amortised")),
)


def drawn_pairs(count: int, photos: bool) -> list[tuple[str, str, int]]:
    """Probe, reference and whether they are one person."""
    root = data_root() / "faces"
    if photos:
        known = [(str(pair[0]), str(pair[1]), int(pair[2])) for pair in read_pairs(root / "pairs.txt")]
        return [pair for pair in known if all((root / "lfw250" / name).is_file() for name in pair[:2])][
            :count
        ]
    files = sorted(str(path.relative_to(root / "lfw112")) for path in (root / "lfw112").glob("*/*.jpg"))
    random, drawn = np.random.default_rng(0), []
    for _ in range(count):
        a, b = (files[number] for number in random.choice(FACES, size=2, replace=False))
        drawn.append((a, b, int(Path(a).parent == Path(b).parent)))
    return drawn


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


def measured(cell: Cell, folder: Path) -> dict[str, Any]:
    place = folder / cell.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with open(place / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("probe", "reference", "genuine"))
        pairs = drawn_pairs(cell.pairs, cell.photos)
        writer.writerows(pairs)
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
    faces = len({name for pair in pairs for name in pair[:2]})
    return {
        **asdict(cell),
        "faces": faces,
        "seconds": seconds,
        "processor": spent,
        "memory_mib": highest / 2**20,
        **found,
    }


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


def show(*values: object) -> None:
    print(*(f"{value!s:>{width}}" for value, width in zip(values, WIDTHS, strict=True)), flush=True)


WIDTHS = (20, 14, 7, 6, 9, 7, 6, 6, 8, 10, 6, 11, 11)
TITLES = (
    "recognizer", "method", "from", "engine", "processes", "pairs", "faces", "s", "pairs/s", "processor", "MiB",
    "h a million", "core hours",
)  # fmt: skip


def show_cell(row: dict[str, Any]) -> None:
    """One line; hours are those of a million pairs on one such machine, and of one core."""
    rate = row["pairs"] / row["seconds"]
    show(
        row["recognizer"], row["method"] or "decide only", "photos" if row["photos"] else "crops", row["engine"],
        row["workers"], row["pairs"], row["faces"], f"{row['seconds']:.0f}", f"{rate:.1f}",
        f"{row['processor']:.0f}", f"{row['memory_mib']:.0f}", f"{MILLION / rate / 3600:.1f}",
        f"{row['processor'] / row['pairs'] * MILLION / 3600:.1f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the figures, and of the runs meanwhile"
    )
    parser.add_argument("--short", action="store_true", help=f"a {SHORT}th of the pairs")
    parser.add_argument(
        "--cells", default="", help="parts of names, with commas, as local-1-xfr_compact128-decide,ray"
    )
    parser.add_argument("--only-report", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        run_cell(Cell(**json.loads(arguments.cell)), arguments.out)
        return
    show(*TITLES)
    for cell in CELLS:
        chosen = Cell(**{**asdict(cell), "pairs": max(20, cell.pairs // SHORT)}) if arguments.short else cell
        if not any(part in chosen.name for part in arguments.cells.split(",")):
            continue
        known = arguments.out / f"{chosen.name}.json"
        if not known.is_file() and not arguments.only_report:
            write_text(known, json.dumps(measured(chosen, arguments.out)))
        if known.is_file():
            show_cell(json.loads(known.read_text()))


if __name__ == "__main__":
    main()
