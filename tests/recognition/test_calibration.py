"""Calibration: thresholds come from labelled scores, and likelihood ratios mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Calibration, calibrate

RNG = np.random.default_rng(0)
GENUINE = RNG.normal(0.6, 0.1, 3000)
IMPOSTOR = RNG.normal(0.1, 0.1, 3000)


def test_operating_points_hold_what_was_observed() -> None:
    calibration = calibrate(GENUINE, IMPOSTOR, "toy", fmr=(1e-2, 1e-3))
    assert calibration.genuine_pairs == calibration.impostor_pairs == 3000
    assert calibration.eer.threshold == pytest.approx(0.35, abs=0.02)
    assert calibration.threshold == calibration.threshold_at(1e-3) > calibration.eer.threshold
    for nominal, point in zip(calibration.nominal_fmr, calibration.at_fmr, strict=True):
        assert point.fmr <= nominal
        assert point.fnmr == np.mean(point.threshold > GENUINE)
        assert calibration.threshold_at(nominal) == point.threshold


def test_rates_that_were_not_calibrated_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"calibrated are 0\.01, 0\.001"):
        calibrate(GENUINE, IMPOSTOR, "toy").threshold_at(0.5)


def test_likelihood_ratio_of_two_equal_gaussians_is_the_textbook_line() -> None:
    calibration = calibrate(GENUINE, IMPOSTOR, "toy")
    assert calibration.llr_slope == pytest.approx(0.5 / 0.1**2, rel=0.1)
    assert calibration.log_likelihood_ratio(0.35) == pytest.approx(0, abs=0.5)
    assert calibration.cllr < 0.1


def test_unequal_class_sizes_do_not_move_the_likelihood_ratio() -> None:
    few = calibrate(GENUINE[:300], IMPOSTOR, "toy")
    assert few.log_likelihood_ratio(0.35) == pytest.approx(0, abs=1.0)


def test_json_round_trip() -> None:
    calibration = calibrate(GENUINE, IMPOSTOR, "toy")
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
