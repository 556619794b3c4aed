"""A worker process that takes too much: memory fails within it, CPU time ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

_CONFINED = """
from xfr_plugin.service.confinement import allow_batch, confine
from xfr_plugin.service.limits import Limits
limits = Limits(memory_mib=512, cpu_seconds={seconds})
confine(limits)
allow_batch(limits)
{work}
"""


def confined(work: str, seconds: int = 1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _CONFINED.format(work=work, seconds=seconds)]
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each of NumPy's has memory of its own
    return subprocess.run(command, env=one_thread, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    "work", ["bytearray(1 << 30)", "import numpy; numpy.ones(1 << 28)", "[0] * (1 << 28)"]
)
def test_memory_fails_and_the_process_lives(work: str) -> None:
    done = confined(f"try:\n    {work}\nexcept MemoryError:\n    print('lives')", seconds=60)
    assert done.stdout.strip() == "lives", done.stderr


def test_memory_that_fails_in_torch_is_the_requests_fault_and_not_ours() -> None:
    done = confined(
        "import torch\nfrom xfr_plugin.service.errors import as_service_error\n"
        "try:\n    torch.ones(1 << 30)\nexcept Exception as error:\n    print(as_service_error(error).code)"
    )
    assert done.stdout.strip() == "too_large", done.stderr


def test_time_ends_the_process_even_where_no_python_runs() -> None:
    assert confined("sum(range(10**12))").returncode == -signal.SIGPROF


def test_every_batch_has_its_own_time() -> None:
    """Eight times .2 seconds, with one second for each: more than the time of one, each far from it."""
    done = confined("import time\nfor _ in range(8):\n    end = time.process_time() + 0.2\n    allow_batch(limits)\n"
                    "    while time.process_time() < end: pass\nprint('lives')")  # fmt: skip
    assert done.stdout.strip() == "lives"
