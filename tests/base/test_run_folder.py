"""Two servers never share a folder, and none starts where there is no room."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from xfr_plugin.base.run_folder import check_running, check_space, lock_folder
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError

_HOLD = """
from pathlib import Path
from xfr_plugin.base.run_folder import lock_folder
lock_folder(Path({!r}))
input()
"""


def test_a_folder_is_one_servers(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    kept = tmp_path / "run" / "key_file.json"
    kept.write_text("{}")
    lock = lock_folder(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
    with pytest.raises(InputError, match="another server runs"):
        lock_folder(tmp_path / "run")
    assert kept.exists()
    os.close(lock)
    os.close(lock_folder(tmp_path / "run"))


def test_a_killed_server_leaves_the_folder_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD.format(str(tmp_path))]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
        while not (tmp_path / "lock").exists():
            assert other.poll() is None
            time.sleep(0.01)
        other.kill()
    os.close(lock_folder(tmp_path))


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        lock_folder(tmp_path / name)


def test_a_temporary_folder_without_room_is_refused(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(InputError, match="TMPDIR"):
        check_space(tmp_path, 1 << 60)


def test_whether_a_server_runs_in_a_folder(tmp_path: Path) -> None:
    """What a killed one left behind is no server; and to ask keeps none from starting."""
    with pytest.raises(InputError, match="no server runs"):
        check_running(tmp_path / "nowhere")
    (tmp_path / "key_file.json").write_text('{"inference": {"key": "left"}}')
    lock = lock_folder(tmp_path)
    check_running(tmp_path)
    os.close(lock)
    with pytest.raises(InputError, match="no server runs"):
        check_running(tmp_path)
    rotated = CliRunner().invoke(app, ["serve", "--rotate-token", "--run-dir", str(tmp_path)])
    assert rotated.exit_code == 2
    assert "no server runs" in rotated.stderr
    assert "left" in (tmp_path / "key_file.json").read_text()
    os.close(lock_folder(tmp_path))
