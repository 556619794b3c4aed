"""S-RISE: masks weighted by the similarity that they leave (Lu and Ebrahimi, 2023, arXiv 2304.06118)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from xfr_plugin.attr._base.caveats import MASKED, TOO_FEW
from xfr_plugin.attr._base.masks import random_grids, weighted_sum
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.perturbation import PerturbationPairAttribution
from xfr_plugin.attr._base.scoring import FaceScores, Fill
from xfr_plugin.attr._base.smoothing import Blur
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.errors import InputError

__all__ = ["SRise"]

Level = Literal["mean", "threshold", "none"]


@attribution_method(
    name="srise",
    title="Similarity-weighted random masks",
    paper="Lu and Ebrahimi, arXiv 2304.06118",
    year=2023,
    needs="scores",
    cost="1 + 500 forward a face",
    relative_cost=430,
    caveat=f"{MASKED}; {TOO_FEW}",
    trial_options={"n_masks": 40},
)
class SRise(PerturbationPairAttribution):
    """RISE for pairs: S = Σ_i (s_i − level) · m_i / (n · p).

    A keep-mask m_i is a coarse random grid whose cells are kept with probability p, enlarged bilinearly and shifted
    (Petsiuk et al., arXiv 1806.07421); s_i is the score of the masked face with its clean partner, n the number of
    masks. The published map is `level="none"`. It estimates the score that remains where a pixel is kept, and has the
    sign of the score everywhere: it ranks pixels, and knows no dissimilar ones. Subtracting the mean score of all
    masks takes the mean score times the masks' coverage away, which is a constant but for sampling noise, and that
    noise can exceed the rest of the map. The sign then means something: positive where keeping a pixel goes with an
    above-average score, negative where with a below-average one. So this is the default.

    Number and grain of the masks are RISE's grid and CorrRISE's count: the paper's own were not available to us.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`. The map depends on it with `level="threshold"` only.
        n_masks: number of masks for each face.
        grid: cells along each side of the coarse grid.
        keep_probability: of a cell, between 0 and 1.
        level: what scores are compared with: `mean` (of all masked scores), `threshold`, or `none`.
        fill, blur: see `PerturbationPairAttribution`.
        seed: of the masks.

    Raises:
        InputError: an unknown option.

    Example:
        >>> published = SRise(recognizer, level="none")  # ranks pixels, and knows no dissimilar ones
        >>> probe_map, reference_map = published.attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        n_masks: int = 500,
        grid: int = 7,
        keep_probability: float = 0.5,
        level: Level = "mean",
        fill: Fill = "black",
        blur: Blur | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(forward_func, threshold, fill=fill, blur=blur)
        if not 0 < keep_probability < 1:
            raise InputError(f"keep_probability must be between 0 and 1, got {keep_probability}")
        self.n_masks = checked_at_least("n_masks", n_masks, 2)
        self.grid = checked_at_least("grid", grid, 1)
        self.keep_probability = keep_probability
        self.level: Level = checked_choice("level", level, "mean", "threshold", "none")
        self.seed = seed

    def _maps(self, faces: FaceScores) -> Tensor:
        masks = random_grids(self.n_masks, self.grid, self.keep_probability, faces.shape, self.seed)
        scores = faces.scores(masks, keep=lambda drawn, _: drawn[None])
        weights = (scores - self._level(scores)) / (self.n_masks * self.keep_probability)
        return weighted_sum(weights, masks)

    def _level(self, scores: Tensor) -> Tensor | float:
        if self.level == "mean":
            return scores.mean(dim=1, keepdim=True)
        return self.threshold if self.level == "threshold" else 0.0
