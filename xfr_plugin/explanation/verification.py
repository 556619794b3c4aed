"""The decision on a pair: score, threshold, margin."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, computed_field, model_validator

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Provenance, Recognizer
from xfr_plugin.recognition.calibration import Calibration
from xfr_plugin.recognition.contract import check_threshold
from xfr_plugin.recognition.strength import Strength

__all__ = ["Verification", "choose_threshold", "decide", "decision", "likelihood_ratios"]


class Verification(BaseModel):
    """A verification decision.

    Attributes:
        score: cosine of the two embeddings, −1…1; of a recognizer that gives scores only, its score.
        threshold: the pair is a match if the score is at or above it.
        threshold_source: where the threshold comes from, in words.
        log_likelihood_ratio: natural logarithm of how much likelier the score is for one person than for two;
            None where the recognizer is not calibrated. Bounded where `strength` is.
        strength: the same as log10, with bounds and interval; None where the data's bounds are not known.
        recognizer: name of the recognizer.
        provenance: where the recognizer comes from.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    score: float
    threshold: float
    threshold_source: str
    log_likelihood_ratio: float | None = None
    strength: Strength | None = None
    recognizer: str
    provenance: Provenance

    @model_validator(mode="after")
    def _check_finite(self) -> Verification:
        if not (math.isfinite(self.score) and math.isfinite(self.threshold)):
            raise ValueError("score and threshold must be finite")
        return self

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """What its `repr` names: the decision, and not everything that is behind it."""
        yield from (
            ("match", self.match),
            ("score", round(self.score, 4)),
            ("threshold", round(self.threshold, 4)),
        )
        yield "recognizer", self.recognizer

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def match(self) -> bool:
        """The decision."""
        return self.score >= self.threshold

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def margin(self) -> float:
        """Score minus threshold: how far the decision is from the other one."""
        return self.score - self.threshold


def choose_threshold(
    recognizer: Recognizer, threshold: float | None = None, fmr: float | None = None
) -> tuple[float, str]:
    """Threshold to decide at, and its source in words.

    Args:
        recognizer: brings its own threshold or calibration.
        threshold: a threshold given by hand, −1…1.
        fmr: a false match rate (0…1) that the recognizer is calibrated for.

    Raises:
        InputError: both are given, the threshold is no cosine, the recognizer has none of its own, or it fails its
            self-test.
    """
    if threshold is not None and fmr is not None:
        raise InputError("give either a threshold or an FMR, not both")
    if threshold is not None:
        given = check_threshold(threshold, is_cosine=recognizer.gives != "scores")
        assert given is not None
        if not recognizer.tested:  # one without a threshold of its own decides for the first time
            recognizer.self_test()
        return given, "given"
    if fmr is not None:
        chosen = recognizer.threshold_at(fmr)
        assert recognizer.calibration is not None
        return chosen, recognizer.calibration.fmr_in_words(fmr)
    if recognizer.calibration is not None and recognizer.threshold == recognizer.calibration.threshold:
        return recognizer.threshold, recognizer.calibration.threshold_in_words
    return recognizer.threshold, "set with the recognizer"


def decide(recognizer: Recognizer, score: float, threshold: float, source: str) -> Verification:
    """Make the decision on a score.

    Raises:
        InputError: the score is NaN, so the network does not work on this input.
    """
    if not math.isfinite(score):
        raise InputError(f"{recognizer.name} returned a score that is not a number: check its weights")
    if recognizer.gives != "scores":
        score = min(max(score, -1.0), 1.0)  # rounding can exceed the cosine's range
    return decision(
        score, (threshold, source), recognizer.name, recognizer.provenance, recognizer.calibration
    )


def decision(
    score: float,
    threshold: tuple[float, str],
    recognizer: str,
    provenance: Provenance,
    calibration: Calibration | None,
) -> Verification:
    """The decision on a score, where all that is known of the recognizer is what it was called and calibrated to."""
    return Verification(
        score=score,
        threshold=threshold[0],
        threshold_source=threshold[1],
        log_likelihood_ratio=float(likelihood_ratios(calibration, np.array(score))) if calibration else None,
        strength=calibration.strength(score) if calibration else None,
        recognizer=recognizer,
        provenance=provenance,
    )


def likelihood_ratios(calibration: Calibration, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural-log likelihood ratios of scores, of any shape: bounded where the bounds are known."""
    ratios = calibration.llr_slope * scores + calibration.llr_intercept
    if calibration.support is None:
        return np.asarray(ratios)
    lower, upper = calibration.support.lower_bound, calibration.support.upper_bound
    return np.clip(ratios, lower * math.log(10), upper * math.log(10))
