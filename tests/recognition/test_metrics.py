"""Error rates against plain counting."""

from __future__ import annotations

import numpy as np
import pytest

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import metrics

RNG = np.random.default_rng(0)
GENUINE = RNG.normal(0.6, 0.15, 400)
IMPOSTOR = RNG.normal(0.0, 0.12, 1000)


def test_error_rates_count_matches_at_or_above_the_threshold() -> None:
    assert metrics.error_rates([0.2, 0.3], [0.3, 0.1, 0.0], 0.3) == (pytest.approx(1 / 3), 0.5)


@pytest.mark.parametrize("fmr", [0.5, 0.1, 0.01, 0.001])
def test_threshold_at_fmr_is_the_lowest_that_keeps_the_rate(fmr: float) -> None:
    threshold = metrics.threshold_at_fmr(IMPOSTOR, fmr)
    assert np.mean(threshold <= IMPOSTOR) <= fmr
    lower = IMPOSTOR[threshold > IMPOSTOR].max()
    assert np.mean(lower <= IMPOSTOR) > fmr


def test_threshold_at_fmr_with_ties_stays_below_the_rate() -> None:
    assert np.mean(metrics.threshold_at_fmr([0.5] * 10 + [0.1] * 90, 0.05) <= np.array([0.5] * 10)) == 0


def test_unobservable_rates_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be observed on 1000"):
        metrics.threshold_at_fmr(IMPOSTOR, 0.0005)


def test_equal_error_rate_is_where_the_rates_cross() -> None:
    rate, threshold = metrics.equal_error_rate(GENUINE, IMPOSTOR)
    fmr, fnmr = metrics.error_rates(GENUINE, IMPOSTOR, threshold)
    assert abs(fmr - rate) < 0.003
    assert abs(fnmr - rate) < 0.003


def test_equal_error_rate_of_separable_scores_is_zero_between_them() -> None:
    rate, threshold = metrics.equal_error_rate([0.8, 0.9], [0.1, 0.2])
    assert rate == 0
    assert 0.2 < threshold <= 0.8


def test_best_threshold_beats_every_other() -> None:
    scores = np.concatenate([GENUINE[:60], IMPOSTOR[:60], [0.3, 0.3]])
    same = np.array([True] * 60 + [False] * 60 + [True, False])
    threshold = metrics.best_threshold(scores, same)
    best = max(np.mean((scores >= t) == same) for t in [*scores, 2.0])
    assert np.mean((scores >= threshold) == same) == best


def test_kfold_accuracy_against_the_plain_protocol() -> None:
    scores = np.concatenate([GENUINE[:100], IMPOSTOR[:100]])
    same = np.repeat([True, False], 100)
    folds = np.tile(np.arange(5), 40)
    expected = []
    for fold in range(5):
        test = folds == fold
        threshold = metrics.best_threshold(scores[~test], same[~test])
        expected.append(np.mean((scores[test] >= threshold) == same[test]))
    result = metrics.kfold_accuracy(scores, same, folds)
    assert result.mean == pytest.approx(np.mean(expected))
    assert result.std == pytest.approx(np.std(expected))


def test_cllr_of_known_cases() -> None:
    assert metrics.cllr([0.0], [0.0]) == pytest.approx(1.0)
    assert metrics.cllr([50.0], [-50.0]) == pytest.approx(0.0, abs=1e-12)
    assert metrics.cllr([np.log(3)], [np.log(3)]) == pytest.approx((np.log2(4 / 3) + np.log2(4)) / 2)


@pytest.mark.parametrize("scores", [[], [np.nan], [[0.1]]])
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(InputError, match="genuine scores"):
        metrics.equal_error_rate(scores, IMPOSTOR)
