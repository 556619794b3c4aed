"""What is kept is what would be computed, and takes no more memory than it may."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from xfr_plugin.base.latest import Latest


def test_the_latest_are_kept_within_the_limit() -> None:
    made: list[bytes] = []

    def of(key: bytes) -> Tensor:
        def make() -> Tensor:
            made.append(key)
            return torch.full((4,), float(key), dtype=torch.float64)

        return latest.get(key, make)

    latest = Latest(2 * 32)
    for key in (b"1", b"2", b"1", b"3", b"1", b"2"):  # 2 is the oldest when 3 comes
        assert of(key).tolist() == [float(key)] * 4
    assert made == [b"1", b"2", b"3", b"2"]


@pytest.mark.parametrize("limit", [0, 31])
def test_the_last_is_kept_however_large(limit: int) -> None:
    latest = Latest(limit)
    first = latest.get(b"1", lambda: torch.zeros(4, dtype=torch.float64))
    assert latest.get(b"1", lambda: torch.ones(4)) is first
    assert latest.get(b"2", lambda: torch.ones(4)).sum() == 4
    assert latest.get(b"1", lambda: torch.ones(4)) is not first


def _refused() -> Tensor:
    raise AssertionError("it is made although it is there")


def test_a_folder_keeps_all_for_other_processes(tmp_path: Path) -> None:
    made = torch.randn(2, 3, dtype=torch.float64)
    Latest(0, tmp_path / "new").get(b"1", lambda: made)
    found = Latest(0, tmp_path / "new").get(b"1", _refused)
    assert torch.equal(found, made)
    assert found.dtype == made.dtype


@pytest.mark.parametrize("held", [b"", b"no tensors", None])
def test_what_is_damaged_in_the_folder_is_made_again(tmp_path: Path, held: bytes | None) -> None:
    Latest(0, tmp_path).get(b"1", lambda: torch.zeros(4))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3] if held is None else held)
    assert Latest(0, tmp_path).get(b"1", lambda: torch.ones(4)).sum() == 4
    assert Latest(0, tmp_path).get(b"1", _refused).sum() == 4


def test_a_folder_that_cannot_be_written_to_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("no folder")
    latest = Latest(2**10, tmp_path / "folder")
    assert latest.get(b"1", lambda: torch.ones(4)).sum() == 4
    assert latest.get(b"1", _refused).sum() == 4
