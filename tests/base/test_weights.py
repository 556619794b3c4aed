"""Weight files that the machine cannot read are an error of ours that says which file it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from xfr_plugin.base import weights
from xfr_plugin.errors import WeightsError


def test_a_file_for_which_memory_is_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.write_weights(tmp_path / "a.safetensors", {"w": torch.zeros(2)}, {})

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("unable to mmap 8 bytes: Cannot allocate memory (12)")

    monkeypatch.setattr(weights, "safe_open", refuse)
    with pytest.raises(WeightsError, match=r"a\.safetensors cannot be read here: unable to mmap"):
        weights.read_weights(tmp_path / "a.safetensors")
