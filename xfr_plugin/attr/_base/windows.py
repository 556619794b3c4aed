"""The base of attributions that change a face through Gaussian windows of several sizes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from xfr_plugin.attr._base.masks import GaussianMasks, gaussian_lattice, weighted_sum
from xfr_plugin.attr._base.perturbation import PerturbationPairAttribution
from xfr_plugin.attr._base.scoring import FaceScores
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.errors import InputError

__all__ = ["WindowAttribution"]


class WindowAttribution(PerturbationPairAttribution):
    """What a change does to the score, laid where it was made: S = −Σ_w g_w G_w / Σ G_w, averaged over sizes.

    Args:
        forward_func, threshold: see `PairAttribution`.
        sizes: standard deviations of the windows in pixels of 112.
        spacing: distance of window centres, in standard deviations.

    Raises:
        InputError: an unknown option.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        sizes: Sequence[float] = (6, 9, 14),
        spacing: float = 1.25,
    ) -> None:
        super().__init__(forward_func, threshold)
        if not sizes:
            raise InputError("sizes must name at least one standard deviation")
        for size in sizes:
            checked_at_least("sizes", size, 1)
        checked_at_least("spacing", spacing, 0.25)
        self.sizes = tuple(float(size) for size in sizes)
        self.spacing = float(spacing)

    def _maps(self, faces: FaceScores) -> Tensor:
        clean = faces.clean()[:, None]
        maps = torch.zeros_like(faces.images[:, 0])
        for size in self.sizes:
            windows = gaussian_lattice(size, size * self.spacing, faces.shape)
            gains = self._changed_scores(faces, windows) - clean
            covered = weighted_sum(gains.new_ones(1, len(windows)), windows)
            maps -= weighted_sum(gains, windows) / covered.clamp_min(1e-6) / len(self.sizes)
        return maps

    @abstractmethod
    def _changed_scores(self, faces: FaceScores, windows: GaussianMasks) -> Tensor:
        """Scores M×n of every face changed in every window."""
