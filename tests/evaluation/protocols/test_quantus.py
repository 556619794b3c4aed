"""Metrics of Quantus, where it is installed, against plain code; a clear word where it is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.protocol_toys import SIZE, a_pair, random_pair_maps, value_of

import xfr_plugin
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols._shared import generator_for
from xfr_plugin.evaluation.protocols.quantus_metrics import QuantusMetrics
from xfr_plugin.recognition import Recognizer


def test_without_quantus_there_is_a_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "quantus", None)  # so that its import fails
    with pytest.raises(InputError, match="pip install quantus"):
        QuantusMetrics()
    with pytest.raises(InputError, match="metrics must be some of"):
        QuantusMetrics(metrics=("road",))
    with pytest.raises(InputError, match="runs"):
        QuantusMetrics(runs=1)


def test_nothing_imports_it_by_itself() -> None:
    for file in Path(xfr_plugin.__file__).parent.rglob("*.py"):
        assert not re.search(
            r"^\s*(?:import|from) quantus\b", file.read_text(encoding="utf-8"), re.MULTILINE
        ), file


def test_metrics_are_those_of_plain_code(recognizer: Recognizer) -> None:
    pytest.importorskip("quantus", reason="Quantus (GPL-3) is not installed")
    pair, maps, setting = a_pair(), random_pair_maps(), Setting(recognizer, 0.2)
    state = np.random.get_state()[1].copy()  # noqa: NPY002  # which must be left alone
    measured = list(QuantusMetrics(runs=6).judge(pair, maps, setting))
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002  # as above
    values = sorted(abs(float(v)) for v in maps[0].ravel())
    total, count = sum(values), len(values)
    gini = sum((2 * (i + 1) - count - 1) * v for i, v in enumerate(values)) / (count * total)
    entropy = -sum(v / total * np.log(v / total) for v in values)
    assert value_of(measured, "sparseness") == pytest.approx(gini, rel=1e-3)
    assert value_of(measured, "complexity") == pytest.approx(entropy, rel=1e-3)

    only = QuantusMetrics(metrics=("faithfulness_correlation",), runs=6)
    found = value_of(list(only.judge(pair, maps, setting)), "faithfulness_correlation")
    rng = np.random.RandomState(
        int(generator_for(setting, pair, "quantus").integers(2**32))
    )  # as Quantus draws
    probe, reference = pair.images(recognizer)
    flat = np.broadcast_to(maps[0], (3, *SIZE)).astype(np.float64).ravel()
    partner, clean = recognizer.embed(torch.cat([reference, probe]))
    sums, falls = [], []
    for _ in range(6):
        hidden = rng.choice(flat.size, round(0.1 * flat.size), replace=False)
        shown = probe.numpy().ravel().copy()
        shown[hidden] = 0
        changed = recognizer.embed(torch.from_numpy(shown).view(1, 3, *SIZE))[0]
        sums.append(sum(flat[i] for i in hidden))
        falls.append(float(clean @ partner - changed @ partner))
    assert found == pytest.approx(np.corrcoef(sums, falls)[0, 1], abs=1e-4)
