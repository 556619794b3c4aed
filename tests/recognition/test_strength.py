"""Strength of a score: bounds that the data can show, errors that shrink with the number of people."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import list_recognizers, zoo_card
from xfr_plugin.recognition.strength import evidence_bounds, llr_support, score_histogram


def people_of(count: int, photos: int = 3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings that scatter about a direction of each person."""
    rng = np.random.default_rng(0)
    numbers = np.arange(count).repeat(photos)
    directions = rng.normal(size=(count, 32))[numbers] + 0.8 * rng.normal(size=(len(numbers), 32))
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32), numbers


def test_histogram_holds_shares_of_each_kind() -> None:
    found = score_histogram([0.5, 0.51, 1.0], [-1.0, -1.0])
    assert len(found.genuine) == len(found.impostor) == 100
    assert sum(found.genuine) == pytest.approx(1, abs=1e-3)
    assert found.genuine[75] == pytest.approx(2 / 3, abs=1e-3)
    assert found.impostor[0] == 1


def test_bounds_and_errors_grow_with_the_data() -> None:
    pytest.importorskip("lir", reason="bounds are computed by lir (extra `calibrate`)")
    few, many = (llr_support(*people_of(count), 25.0, -10.0, draws=30) for count in (20, 120))
    assert 0 < few.upper_bound < many.upper_bound < np.log10(120 * 119 / 2 + 1)
    assert -np.log10(121) < many.lower_bound < 0
    assert many.covariance[0] < few.covariance[0]
    assert (many.people, many.pairs) == (120, (120, 120 * 119 // 2))


def test_bounds_are_those_of_lir() -> None:
    bayeserror = pytest.importorskip("lir.algorithms.bayeserror", reason="extra `calibrate`")
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(4, 2, 300), rng.normal(-4, 2, 900)
    labels = np.concatenate((np.ones(300), np.zeros(900)))
    expected = bayeserror.elub(np.concatenate((genuine, impostor)) / np.log(10), labels, step_size=0.02)
    assert evidence_bounds(genuine, impostor) == pytest.approx(expected)


def test_too_few_people_are_refused() -> None:
    with pytest.raises(InputError, match="two people"):
        llr_support(*people_of(1), 25.0, -10.0)


@pytest.mark.parametrize("name", list_recognizers())
def test_shipped_cards_hold_bounds(name: str) -> None:
    """Written by `benchmarks/strength.py`."""
    calibration = zoo_card(name).calibration
    assert calibration is not None
    same = calibration.strength(1.0)
    assert same is not None
    assert same.at_bound
    assert same.log10_lr == same.upper_bound < calibration.log_likelihood_ratio(1.0) / np.log(10)
    assert calibration.histogram is not None
    assert calibration.default_fmr == 1e-3
