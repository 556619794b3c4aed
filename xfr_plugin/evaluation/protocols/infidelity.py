"""Infidelity: does the map foretell how the score moves when parts of the face are hidden? (Captum's metric)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._scoring import Fill, _fill_images, checked_fill
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, MapProtocol, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import generator_for

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

    2 + 1 + `samples` forwards, 33 by default.

    Args:
        samples: how many squares are hidden, one at a time.
        squares: their sides, as shares of the face's height.
        fill: what a hidden pixel is replaced by, see `deletion`.

    Raises:
        InputError: an option out of range.
    """

    name = "infidelity"
    title = "Infidelity"
    higher_is_better = {"unexplained": False, "alignment": True}  # noqa: RUF012  # declared so by the base
    sides: Literal["both", "probe"] = "probe"

    def __init__(
        self, *, samples: int = 30, squares: Sequence[float] = (1 / 7, 2 / 7, 3 / 7), fill: Fill = "blur"
    ) -> None:
        if samples < 1 or not squares or not all(0 < side <= 1 for side in squares):
            raise InputError(f"samples ≥ 1 and squares in 0 … 1 are needed, got {samples} and {squares!r}")
        self.samples, self.squares, self.fill = samples, tuple(squares), checked_fill(fill)

    def settings(self) -> dict[str, object]:
        """All options."""
        return {"samples": self.samples, "squares": list(self.squares), "fill": self.fill}

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterator[Measurement]:
        """Hide squares and compare."""
        from captum.metrics import infidelity, infidelity_perturb_func_decorator  # takes its time to import

        probe, reference = pair.images(setting.recognizer)
        rng = generator_for(setting, pair, self.name)
        seen: list[tuple[Tensor, Tensor]] = []

        def score(presence: Tensor, images: Tensor, fills: Tensor, partners: Tensor) -> Tensor:
            embeddings = setting.embed(torch.lerp(fills.expand_as(images), images, presence))
            scores = (embeddings * partners).sum(dim=1)
            seen.append((presence, scores))
            return scores

        @infidelity_perturb_func_decorator(multiply_by_inputs=True)  # type: ignore[untyped-decorator]  # Captum
        def hide(presence: Tensor) -> Tensor:
            hidden = square_masks(len(presence), presence.shape[2:], self.squares, rng)
            return presence * torch.from_numpy(~hidden)[:, None].to(presence)

        size = probe.shape[2:]
        attributions = torch.from_numpy(maps[0].astype(np.float64)).to(probe).view(1, 1, *size)
        value = infidelity(
            score,
            hide,
            torch.ones_like(attributions),
            attributions,
            additional_forward_args=(probe, _fill_images(probe, self.fill), setting.embed(reference)),
            n_perturb_samples=self.samples,
            normalize=True,
        )
        yield from self._measured(float(value), maps[0], seen)

    def _measured(
        self, value: float, signed: NDArray[np.float32], seen: Sequence[tuple[Tensor, Tensor]]
    ) -> Iterator[Measurement]:
        (presence, scores), (_, clean) = seen  # Captum asks for the perturbed ones first
        falls = (clean - scores).double().cpu().numpy()
        hidden = 1 - presence[:, 0].double().cpu().numpy()
        foretold = (hidden * signed.astype(np.float64)).sum(axis=(1, 2))
        moved, norm = float((falls**2).mean()), float(np.linalg.norm(falls) * np.linalg.norm(foretold))
        if moved < NOTHING:
            value, unexplained, alignment = (float("nan"),) * 3
        else:
            unexplained, alignment = value / moved, float(foretold @ falls) / norm if norm > 0 else 0.0
        yield Measurement("", "infidelity", value)
        yield Measurement("", "unexplained", unexplained)
        yield Measurement("", "alignment", alignment)


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
