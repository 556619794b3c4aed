"""What keeps maps of several methods from being taken at face value. That of a single method stands in its file."""

from __future__ import annotations

__all__ = ["AGAINST_BASELINE", "COARSE", "MASKED", "NOT_VALIDATED", "SAMPLED"]

NOT_VALIDATED = "its maps are not yet validated on known evidence, and can point at the wrong region"

MASKED = (
    "its maps say what masking a region does to the score, which includes that masked faces are unlike any face that "
    "the recognizer was trained on; they are not yet validated on known evidence"
)

AGAINST_BASELINE = (
    "its maps explain the difference to a black image, so black pixels get nothing, and an image like no face that "
    "the recognizer was trained on is the measure; they are not yet validated on known evidence"
)

SAMPLED = (
    "its maps are estimates from few samples of a face with parts removed, which is unlike any face that the "
    "recognizer was trained on; they are not yet validated on known evidence"
)

COARSE = (
    "its maps are as coarse as the layer that they come from (7×7 places at the end of most face networks); they are "
    "not yet validated on known evidence"
)
