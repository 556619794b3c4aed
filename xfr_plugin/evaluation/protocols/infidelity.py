"""Infidelity: does the map foretell how the score moves when parts of the face are hidden? (Captum's metric)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.scoring import Fill, _fill_images, checked_fill
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, MapProtocol, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import LastPair, generator_for

__all__ = ["Infidelity", "square_masks"]

NOTHING = 1e-12
"""Mean squared change of the score that is rounding."""


class Infidelity(MapProtocol):
    """Captum's `infidelity` (Yeh et al., NeurIPS 2019, arXiv 1901.09392) of the probe's map.

    The input is the *presence* m of each pixel, 1 at first: the recognizer is shown m·probe + (1 − m)·fill, and the
    score is the cosine with the reference's embedding. A perturbation hides one square, of a side drawn from
    `squares`, anywhere where it fits; Captum's decorator turns it into I = 1 − m. Infidelity is the mean of
    (Σ I·map − Δ)², Δ being how far the score falls. A map of pixels is in units of its own, so Captum's
    `normalize=True` is used: the map is first multiplied by the one number β that fits best.

    Measured: `infidelity`, as Captum gives it, in units of the squared score; `unexplained`, the same over the mean
    of Δ², 0 … 1: 1 for an empty map, or one that foretells nothing; `alignment`, the uncentred correlation of Σ I·map
    and Δ, −1 … 1. β may be negative, so a map of the wrong sign has the infidelity of its negative, and only the
    alignment tells them apart: unexplained = 1 − alignment². All NaN where no square moves the score.

    2 + `samples` forwards, 32 by default, shared by all methods that are judged on a pair one after another.

    Args:
        samples: how many squares are hidden, one at a time.
        squares: their sides, as shares of the face's height.
        fill: what a hidden pixel is replaced by, see `deletion`.

    Raises:
        InputError: an option out of range.
    """

    name = "infidelity"
    title = "Infidelity"
    higher_is_better: ClassVar[dict[str, bool]] = {"unexplained": False, "alignment": True}
    sides: Literal["both", "probe"] = "probe"
    options = ("samples", "squares", "fill")

    def __init__(
        self, *, samples: int = 30, squares: Sequence[float] = (1 / 7, 2 / 7, 3 / 7), fill: Fill = "blur"
    ) -> None:
        if samples < 1 or not squares or not all(0 < side <= 1 for side in squares):
            raise InputError(f"samples ≥ 1 and squares in 0 … 1 are needed, got {samples} and {squares!r}")
        self.samples, self.squares, self.fill = samples, tuple(squares), checked_fill(fill)
        self._shared: LastPair[_Hidden] = LastPair()

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterator[Measurement]:
        """Hide squares and compare."""
        from captum.metrics import infidelity, infidelity_perturb_func_decorator  # takes its time to import

        hidden = self._shared.get(pair, setting, lambda: self._hide(pair, setting))
        untouched = torch.ones(1, 1, *maps[0].shape, dtype=torch.float64)

        @infidelity_perturb_func_decorator(multiply_by_inputs=True)  # type: ignore[untyped-decorator]  # Captum
        def hide(presence: Tensor) -> Tensor:
            return presence * torch.from_numpy(~hidden.masks)[:, None]

        def score(presence: Tensor) -> Tensor:  # of all masks in their order, or of the untouched face
            return torch.from_numpy(hidden.clean if bool(presence.all()) else hidden.scores)

        value = infidelity(
            score,
            hide,
            untouched,
            torch.from_numpy(maps[0].astype(np.float64)).expand_as(untouched),
            n_perturb_samples=self.samples,
            normalize=True,
        )
        falls = hidden.clean - hidden.scores
        foretold = (hidden.masks * maps[0].astype(np.float64)).sum(axis=(1, 2))
        moved, norm = float((falls**2).mean()), float(np.linalg.norm(falls) * np.linalg.norm(foretold))
        known = moved >= NOTHING
        alignment = float(foretold @ falls) / norm if norm > 0 else 0.0
        yield Measurement("", "infidelity", float(value) if known else float("nan"))
        yield Measurement("", "unexplained", float(value) / moved if known else float("nan"))
        yield Measurement("", "alignment", alignment if known else float("nan"))

    def _hide(self, pair: EvaluationPair, setting: Setting) -> _Hidden:
        """Draw the squares and ask for the scores."""
        probe, reference = pair.images(setting.recognizer)
        rng = generator_for(setting, pair, self.name)
        masks = square_masks(self.samples, probe.shape[2:], self.squares, rng)
        shown = torch.where(
            torch.from_numpy(masks)[:, None].to(probe.device), _fill_images(probe, self.fill), probe
        )
        rows = setting.embed(torch.cat([reference, probe, shown])).double()
        scores = setting.compare(rows[1:], rows[:1]).double().cpu().numpy()
        return _Hidden(masks, scores[1:], scores[:1])


@dataclass(frozen=True)
class _Hidden:
    """Masks n×H×W of what was hidden, the scores n then, and the score before, of shape 1."""

    masks: NDArray[np.bool_]
    scores: NDArray[np.float64]
    clean: NDArray[np.float64]


def square_masks(
    count: int, size: Sequence[int], sides: Sequence[float], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Masks N×H×W with one square each, its side drawn from shares of the height, its place where it fits."""
    height, width = size
    masks = np.zeros((count, height, width), dtype=bool)
    for mask in masks:
        side = min(max(1, round(float(rng.choice(sides)) * height)), height, width)
        row, column = rng.integers(height - side + 1), rng.integers(width - side + 1)
        mask[row : row + side, column : column + side] = True
    return masks
