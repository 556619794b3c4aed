"""The decision on a pair: score, threshold, margin."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, computed_field, model_validator

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Provenance, Recognizer
from xfr_plugin.recognition.calibration import Calibration
from xfr_plugin.recognition.contract import check_threshold
from xfr_plugin.recognition.strength import Strength

__all__ = ["Verification", "choose_threshold", "decide"]


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
    strength = recognizer.calibration.strength(score) if recognizer.calibration else None
    return Verification(
        score=score,
        threshold=threshold,
        threshold_source=source,
        log_likelihood_ratio=_natural(recognizer.calibration, score, strength),
        strength=strength,
        recognizer=recognizer.name,
        provenance=recognizer.provenance,
    )


def _natural(calibration: Calibration | None, score: float, strength: Strength | None) -> float | None:
    if strength is not None:
        return strength.log10_lr * math.log(10)
    return None if calibration is None else calibration.log_likelihood_ratio(score)
