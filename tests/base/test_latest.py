"""What is kept is what would be computed, and takes no more memory than it may."""

from __future__ import annotations

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
