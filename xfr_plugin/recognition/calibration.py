"""Calibration: which threshold a recognizer decides at, and what its scores mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike
from pydantic import ConfigDict, Field

from xfr_plugin.base.documents import Document
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import metrics
from xfr_plugin.recognition.strength import LlrSupport, ScoreHistogram, Strength, score_histogram

__all__ = ["DEFAULT_FMR", "Calibration", "OperatingPoint", "calibrate", "fmr_in_words"]

DEFAULT_FMR = 1e-3
"""False match rate (0…1) to decide at unless another is asked for, where it is calibrated."""


class OperatingPoint(Document):
    """A threshold and the error rates (0…1) observed at it."""

    model_config = ConfigDict(allow_inf_nan=False)

    threshold: float
    fmr: float = Field(ge=0, le=1)
    fnmr: float = Field(ge=0, le=1)


class Calibration(Document):
    """Thresholds of a recognizer, measured on a stated data set, and its score → likelihood-ratio map.

    The log-likelihood ratio of a score s is `llr_slope · s + llr_intercept` (natural logarithm): positive
    values speak for "same person". The map is a logistic regression with both classes weighted equally.
    `histogram` holds how the scores lie, `support` how far the map can be believed (`recognition.strength`).
    """

    model_config = ConfigDict(allow_inf_nan=False)

    dataset: str
    genuine_pairs: int = Field(gt=0)
    impostor_pairs: int = Field(gt=0)
    eer: OperatingPoint
    at_fmr: tuple[OperatingPoint, ...] = ()
    nominal_fmr: tuple[float, ...] = ()
    llr_slope: float
    llr_intercept: float
    cllr: float = Field(ge=0)
    histogram: ScoreHistogram | None = None
    support: LlrSupport | None = None

    @property
    def default_fmr(self) -> float | None:
        """False match rate of the default threshold: `DEFAULT_FMR` where it is calibrated, or else None."""
        return next(
            (rate for rate in self.nominal_fmr if math.isclose(rate, DEFAULT_FMR, rel_tol=1e-6)), None
        )

    @property
    def threshold(self) -> float:
        """The default threshold: that of `default_fmr`, or else of the equal error rate."""
        return self.eer.threshold if self.default_fmr is None else self.threshold_at(self.default_fmr)

    @property
    def threshold_in_words(self) -> str:
        """What the default threshold is."""
        if self.default_fmr is not None:
            return self.fmr_in_words(self.default_fmr)
        return f"equal error rate ({self.eer.fmr:.2%} false matches) on {self.dataset}"

    def fmr_in_words(self, fmr: float) -> str:
        """What the threshold for a false match rate promises, and on which data."""
        return f"at most {fmr_in_words(fmr)} impostor pairs of {self.dataset}"

    def threshold_at(self, fmr: float) -> float:
        """Threshold for a false match rate, one of those calibrated.

        Raises:
            InputError: this rate was not calibrated.
        """
        for nominal, point in zip(self.nominal_fmr, self.at_fmr, strict=True):
            if math.isclose(nominal, fmr, rel_tol=1e-6):
                return point.threshold
        known = ", ".join(f"{rate:g}" for rate in self.nominal_fmr) or "none"
        raise InputError(f"no threshold was calibrated for an FMR of {fmr:g}: calibrated are {known}")

    def log_likelihood_ratio(self, score: float) -> float:
        """Natural-log likelihood ratio "same person" against "different people" for a score."""
        return self.llr_slope * score + self.llr_intercept

    def strength(self, score: float) -> Strength | None:
        """How strongly a score speaks, within what the data can show; None without `support`."""
        if self.support is None:
            return None
        return self.support.strength(score, self.log_likelihood_ratio(score), self.dataset)


def fmr_in_words(fmr: float) -> str:
    """A false match rate (0…1) as a count: `1 false match in 1,000`."""
    return f"1 false match in {round(1 / fmr):,}"


def calibrate(
    genuine: ArrayLike,
    impostor: ArrayLike,
    dataset: str,
    fmr: Sequence[float] = (1e-2, 1e-3),
) -> Calibration:
    """Measure thresholds and the likelihood-ratio map on labelled scores.

    Args:
        genuine: scores of pairs of the same person.
        impostor: scores of pairs of different people.
        dataset: what was measured on; stored, and shown with every decision.
        fmr: false match rates to find thresholds for. Rates below one over the number of impostor pairs
            cannot be observed and raise.

    Raises:
        InputError: too few scores, or NaN among them.
    """
    positive = metrics.check_scores(genuine, "genuine")
    negative = metrics.check_scores(impostor, "impostor")
    _, eer_threshold = metrics.equal_error_rate(positive, negative)
    slope, intercept = metrics.logistic_map(positive, negative)
    cost = metrics.cllr(slope * positive + intercept, slope * negative + intercept)
    thresholds = [metrics.threshold_at_fmr(negative, rate) for rate in fmr]
    return Calibration(
        dataset=dataset,
        genuine_pairs=positive.size,
        impostor_pairs=negative.size,
        eer=_operating_point(positive, negative, eer_threshold),
        at_fmr=tuple(_operating_point(positive, negative, t) for t in thresholds),
        nominal_fmr=tuple(fmr),
        llr_slope=slope,
        llr_intercept=intercept,
        cllr=cost,
        histogram=score_histogram(positive, negative),
    )


def _operating_point(genuine: ArrayLike, impostor: ArrayLike, threshold: float) -> OperatingPoint:
    fmr, fnmr = metrics.error_rates(genuine, impostor, threshold)
    return OperatingPoint(threshold=threshold, fmr=fmr, fnmr=fnmr)
