"""From the command to the decision: `xfr verify a b` beside `import torch`, and two photographs in a warm process.

    python benchmarks/start.py [--repeats 9] [--recognizer xfr_compact128]
    python benchmarks/start.py --warm       # only the photographs in a warm process

The photographs are scikit-image's astronaut and a mirrored, darkened copy (512×512). New processes take turns; the
least of each counts, of processor time and of the clock. Work is what `xfr_plugin.verify` takes in a process that has
done it before, on one thread. Then what a new process imports for it beside torch, by package.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from xfr_plugin.cli.demonstration import mirrored_and_darkened

WARM = """
import sys, time, torch, warnings
import xfr_plugin
warnings.simplefilter("ignore")
torch.set_num_threads(1)
recognizer, photos, found = xfr_plugin.load_recognizer(sys.argv[1]), sys.argv[2:], []
for _ in range(8):
    start = time.process_time(), time.perf_counter()
    xfr_plugin.verify(*photos, recognizer=recognizer)
    found.append((time.process_time() - start[0], time.perf_counter() - start[1]))
print(*min(found[1:]))
"""
TOP = 12


def spent(command: list[str]) -> tuple[float, float]:
    """Seconds of the processor, and of the clock, that a command takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=False, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def imported(command: list[str]) -> collections.Counter[str]:
    """Milliseconds that the imports of a command take, by package, without those that they import in turn."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command[1:]], capture_output=True, text=True, check=False
    )
    found: collections.Counter[str] = collections.Counter()
    for own, name in re.findall(r"import time:\s*(\d+) \|\s*\d+ \| +(\S+)", done.stderr):
        found[name.split(".")[0]] += int(own) / 1000
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--warm", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        photos = [str(Path(folder) / name) for name in ("a.png", "b.png")]
        photo = data.astronaut()
        for path, pixels in zip(photos, (photo, mirrored_and_darkened(photo, None)), strict=True):
            Image.fromarray(pixels).save(path)
        warm = subprocess.run(
            [sys.executable, "-c", WARM, arguments.recognizer, *photos],
            capture_output=True,
            text=True,
            check=True,
        )
        work = tuple(map(float, warm.stdout.split()))
        print(f"a decision in a warm process: {work[0]:.3f} s of the processor, {work[1]:.3f} s of the clock")
        if arguments.warm:
            return
        verify = [
            *(sys.executable, "-m", "xfr_plugin.cli", "verify"),
            *(*photos, "--recognizer", arguments.recognizer),
        ]
        commands = {"import torch": [sys.executable, "-c", "import torch"], "xfr verify a b": verify}
        taken = [
            {name: spent(command) for name, command in commands.items()} for _ in range(arguments.repeats)
        ]
        best = {name: tuple(min(run[name][i] for run in taken) for i in (0, 1)) for name in commands}
        packages = imported(verify)
    packages.subtract(imported(commands["import torch"]))
    table = Table("", "processor (s)", "clock (s)")
    for name, seconds in best.items():
        table.add_row(name, *(f"{value:.3f}" for value in seconds))
    torch, command = best.values()
    table.add_row("(verify - work) / torch", *(f"{(command[i] - work[i]) / torch[i]:.2f}" for i in (0, 1)))
    console = Console(width=100)
    console.print(table)
    rest = [f"{name} {took:.0f}" for name, took in packages.most_common(TOP) if took >= 1]
    console.print(f"Imports beside those of `import torch`, ms: {', '.join(rest)}")


if __name__ == "__main__":
    main()
