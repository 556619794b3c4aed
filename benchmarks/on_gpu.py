"""What only a CUDA device can show, in a few minutes: the tests that ask for one, and speed beside the loops.

    python benchmarks/on_gpu.py [--recognizer xfr_compact128]
    python benchmarks/on_gpu.py --device cpu --methods occlusion,fggb --repeats 1   # a rehearsal without the tests

Runs the tests that ask for CUDA (on other machines they skip), by name among those of the files that do, then
`peers_speed.py` on the device, where 10 times the speed of the plain loops is wanted. Its status is the tests' own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

NAMES = "cuda or gpu or DataParallel"
ROOT = Path(__file__).resolve().parents[1]


def tests_for_cuda() -> list[str]:
    """Files of tests that run more where there is a device: those that ask for it, or use a helper that does."""
    asking = [file for file in (ROOT / "tests").rglob("*.py") if "torch.cuda" in file.read_text("utf-8")]
    helpers = {file.stem for file in asking if file.parent.name == "helpers"}
    return [
        str(file)
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if file in asking or any(f"helpers.{name} import" in file.read_text("utf-8") for name in helpers)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", help="of the loops, with commas; all, if left out")
    parser.add_argument("--repeats", default="3", help="of the loops")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    tests = [sys.executable, "-m", "pytest", "-q", "-n0", "-rs", "-k", NAMES, *tests_for_cuda()]
    rehearsed = ["--collect-only"] if arguments.device == "cpu" else []
    tested = subprocess.run([*tests, *rehearsed], cwd=ROOT, check=False)
    speed = [sys.executable, str(ROOT / "benchmarks" / "peers_speed.py"), "--device", arguments.device]
    chosen = ["--methods", arguments.methods] if arguments.methods else []
    speed += ["--recognizer", arguments.recognizer, "--repeats", arguments.repeats, *chosen]
    subprocess.run(speed, cwd=ROOT, check=True)
    raise SystemExit(tested.returncode)


if __name__ == "__main__":
    main()
