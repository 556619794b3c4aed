"""Sanity of the pair: swapped faces have swapped maps, and identical ones nothing that argues against a match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.attr.registry import Method
from xfr_plugin.base.statistics import SMOOTHING, checked_smoothing
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import Attributions, explained, rank_correlation

__all__ = ["Symmetry", "negative_share"]


class Symmetry(MethodProtocol):
    """What must hold for any explanation of a score that does not care which face comes first.

    Ours. Measured: `swap_correlation`, Spearman's rank correlation of each face's map with its map when probe and
    reference are swapped, inside the face, blurred, mean of both faces (should be 1); `swap_difference`, the
    greatest difference of the unblurred maps over the greatest magnitude, the larger of both faces (should be 0, up
    to rounding); `identical_negative`, the share of the negative part in the map of the probe paired with itself
    (should be 0: at τ < 1 nothing argues against a match; not measured at τ ≥ 1; 0 for an empty map).

    Two explanations of a pair.

    Args:
        smoothing: σ of the blur, as a share of the face's height.

    Raises:
        InputError: an option out of range.
    """

    name = "symmetry"
    title = "Symmetry"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "swap_correlation": True,
        "swap_difference": False,
        "identical_negative": False,
    }
    options = ("smoothing",)

    def __init__(self, *, smoothing: float = SMOOTHING) -> None:
        self.smoothing = checked_smoothing(smoothing)
        self._attributions = Attributions()

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Explain the swapped pair, and the probe against itself."""
        probe, reference = pair.images(setting.recognizer)
        attribution = self._attributions.of(method, setting)
        swapped = explained(attribution, (reference, probe))[::-1]
        faces = (pair.probe_regions.face, pair.reference_regions.face)
        correlations = [
            rank_correlation(first, second, face, self.smoothing)
            for first, second, face in zip(maps, swapped, faces, strict=True)
        ]
        differences = [_difference(first, second) for first, second in zip(maps, swapped, strict=True)]
        yield Measurement("", "swap_correlation", float(np.mean(correlations)))
        yield Measurement("", "swap_difference", float(np.max(differences)))
        if setting.threshold < 1:
            same = explained(attribution, (probe, probe))
            yield Measurement(
                "", "identical_negative", float(np.mean([negative_share(side) for side in same]))
            )


def negative_share(values: NDArray[np.floating]) -> float:
    """Share of a signed map's mass that is negative, 0 … 1; 0 for an empty map."""
    exact = values.astype(np.float64)
    total = float(np.abs(exact).sum())
    return float(np.maximum(-exact, 0).sum()) / total if total > 0 else 0.0


def _difference(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    scale = float(np.abs(first).max())
    difference = float(np.abs(first.astype(np.float64) - second).max())
    return difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))
