"""1:N: the best candidates of a gallery, and what argues for each rather than for its runner-up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.service.explaining import Maps

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


def contrast(maps: Sequence[Maps], place: int) -> Maps:
    """Map of the probe against the candidate at `place`, less that against the next one.

    There is a map of the probe only: candidates are embeddings.
    """
    own, other = maps[place][0], maps[place + 1][0]
    return (None, None) if own is None or other is None else (own - other, None)
