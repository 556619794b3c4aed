"""1:N: the best candidates of a gallery, and what argues for each rather than for its runner-up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.explanation.pipeline import PairMaps

__all__ = ["contrast", "rank"]


def rank(
    probe: NDArray[np.float32], gallery: NDArray[np.float32], top: int
) -> tuple[NDArray[np.float64], list[int]]:
    """Scores N of all, and the positions of the `top` best and one more, the last one's runner-up; best first.

    Equal scores keep the order of the gallery.
    """
    scores = np.clip(gallery.astype(np.float64) @ probe.astype(np.float64), -1.0, 1.0)
    kept = min(top + 1, len(scores))
    return scores, np.argsort(-scores, kind="stable")[:kept].tolist()


def contrast(own: PairMaps, other: PairMaps) -> PairMaps:
    """Map of the probe against a candidate, less that against the next one.

    There is a map of the probe only: candidates are embeddings.
    """
    if own.sides[0] is None or other.sides[0] is None:
        return PairMaps((None, None))
    return PairMaps((own.sides[0] - other.sides[0], None))
