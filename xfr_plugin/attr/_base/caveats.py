"""What keeps maps of several methods from being taken at face value. That of a single method stands in its file.

Whatever the method, a caveat ends with what judging it on pairs of known evidence has shown.
"""

from __future__ import annotations

__all__ = ["AGAINST_BASELINE", "COARSE", "LITTLE_BETTER", "MASKED", "NOT_VALIDATED", "SAMPLED", "TOO_FEW"]

LITTLE_BETTER = (
    "on pairs of known evidence its maps did little better than maps that know nothing of the pair"
)
"""Of methods that were judged on 30 pairs or more in each game."""

TOO_FEW = "it was judged on too few pairs of known evidence to say how often it points at the right region"

NOT_VALIDATED = "its maps are not yet validated on known evidence, and can point at the wrong region"
"""Of a new method."""

MASKED = (
    "its maps say what masking a region does to the score, which includes that masked faces are unlike any face that "
    "the recognizer was trained on"
)

AGAINST_BASELINE = (
    "its maps explain the difference to a black image, so black pixels get nothing, and an image like no face that "
    "the recognizer was trained on is the measure"
)

SAMPLED = (
    "its maps are estimates from few samples of a face with parts removed, which is unlike any face that the "
    "recognizer was trained on"
)

COARSE = (
    "its maps are as coarse as the layer that they come from (7×7 places at the end of most face networks)"
)
