"""Removal and aggregation of regions: AVG and MinPlus (Mery and Morris, WACV 2022; Mery, CVPRW 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from xfr_plugin.attr._base.caveats import MASKED, TOO_FEW
from xfr_plugin.attr._base.masks import GaussianMasks, gaussian_lattice, weighted_sum
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.perturbation import PerturbationPairAttribution
from xfr_plugin.attr._base.scoring import FaceScores, Fill
from xfr_plugin.attr._base.smoothing import Blur
from xfr_plugin.base.one_thread import complement, multiplied
from xfr_plugin.base.options import checked_at_least, checked_choice

__all__ = ["MeryAvg", "MinPlus"]

Strategy = Literal["both", "removal", "aggregation"]


@attribution_method(
    name="mery_avg",
    title="Removal and aggregation of regions",
    paper="Mery and Morris, WACV 2022",
    year=2022,
    needs="scores",
    cost="1 + 394 forward a face (112×112)",
    relative_cost=305,
    caveat=f"{MASKED}; {TOO_FEW}",
    trial_options={"stride": 28},
)
class MeryAvg(PerturbationPairAttribution):
    """AVG: the mean of what a region's removal costs and of what the region brings to an empty face.

    Regions are Gaussian bells G on a lattice. Removal reads the drop of the score from I to I·(1 − G), aggregation
    its gain from the empty face (the fill alone) to I·G; partners stay clean. Each pixel gets the mean of the
    changes of all regions, weighted by G at the pixel, in units of the score. A region that argues for a match has a
    positive change. Where the score rises by a removal, or falls by an addition, the map is negative (dissimilar).
    Size and distance of the bells are ours: the published values were not available to us.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`. The map does not depend on it.
        strategy: `both`, their mean; or `removal` or `aggregation` alone.
        sigma: standard deviation of the bells, in pixels at 112×112.
        stride: distance between the bells, in pixels at 112×112.
        fill: see `PerturbationPairAttribution`; also what the empty face shows.
        blur: see `PerturbationPairAttribution`.

    Raises:
        InputError: an unknown option.

    Example:
        >>> removal = MeryAvg(recognizer, strategy="removal", fill="mean")
        >>> probe_map, reference_map = removal.attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        strategy: Strategy = "both",
        sigma: float = 10,
        stride: float = 8,
        fill: Fill = "black",
        blur: Blur | None = None,
    ) -> None:
        super().__init__(forward_func, threshold, fill=fill, blur=blur)
        self.strategy: Strategy = checked_choice("strategy", strategy, "both", "removal", "aggregation")
        self.sigma = checked_at_least("sigma", sigma, 0.1)
        self.stride = checked_at_least("stride", stride, 1)

    def _maps(self, faces: FaceScores) -> Tensor:
        regions = gaussian_lattice(self.sigma, self.stride, faces.shape)
        changes = [
            self._changes(faces, regions, adding)
            for adding in (False, True)
            if self.strategy == "both" or adding == (self.strategy == "aggregation")
        ]
        total = weighted_sum(torch.ones_like(changes[0][:1]), regions)
        return weighted_sum(torch.stack(changes).mean(dim=0), regions) / total

    def _changes(self, faces: FaceScores, regions: GaussianMasks, adding: bool) -> Tensor:
        """What each region argues for a match, M×n: drop of the score without it, or gain with it."""
        return _Path(faces, regions, adding).changes()


@attribution_method(
    name="minplus",
    title="Greedy removal and aggregation of regions",
    paper="Mery, CVPRW 2022",
    year=2022,
    needs="scores",
    cost="1 + 1182 forward a face (112×112)",
    relative_cost=1100,
    caveat=f"{MASKED}; {TOO_FEW}",
    trial_options={"stride": 28, "rounds": 2},
)
class MinPlus(MeryAvg):
    """MinPlus: removal (minus) and aggregation (plus) in several greedy rounds.

    The first round is `MeryAvg`. Then the region whose removal costs the score most is taken away for good, in
    each face, and the region that brings most is added for good, and the changes are read again: evidence
    that stands in for what has been removed shows in later rounds. The map is the mean over the rounds. Every face
    of every pair has its own greedy path, and its partner stays clean.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`. The map does not depend on it.
        rounds: number of rounds; with 1 this is `MeryAvg`.
        strategy, sigma, stride, fill, blur: see `MeryAvg`.

    Raises:
        InputError: an unknown option.

    Example:
        >>> probe_map, reference_map = MinPlus(recognizer, rounds=2).attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        rounds: int = 3,
        strategy: Strategy = "both",
        sigma: float = 10,
        stride: float = 8,
        fill: Fill = "black",
        blur: Blur | None = None,
    ) -> None:
        super().__init__(
            forward_func, threshold, strategy=strategy, sigma=sigma, stride=stride, fill=fill, blur=blur
        )
        self.rounds = checked_at_least("rounds", rounds, 1)

    def _changes(self, faces: FaceScores, regions: GaussianMasks, adding: bool) -> Tensor:
        path = _Path(faces, regions, adding)
        changes = [path.changes()]
        for _ in range(1, self.rounds):
            path.take(changes[-1].argmax(dim=1))
            changes.append(path.changes())
        return torch.stack(changes).mean(dim=0)


class _Path:
    """Faces from which regions are taken one after the other, or to which they are added.

    Both are one product, of 1 − G over the regions taken: what is left of the face, or what is still missing.
    """

    def __init__(self, faces: FaceScores, regions: GaussianMasks, adding: bool) -> None:
        self.faces = faces
        self.regions = regions
        self.adding = adding
        self.product = faces.images.new_ones(len(faces.images), *faces.shape)
        self.rounds = 0

    def changes(self) -> Tensor:
        """Drop M×n of the score when each region is removed too, or gain when it is added too."""
        self.rounds += 1
        stage = f"{'aggregation' if self.adding else 'removal'} {self.rounds}"
        now = self.faces.scores(self.regions.only(slice(0, 1)), self._keep_now, stage=None)
        scores = self.faces.scores(self.regions, self._keep, stage)
        return scores - now if self.adding else now - scores

    def take(self, regions: Tensor) -> None:
        """Remove, or add, a region of each face for good."""
        self.product = self.product * (1 - self.regions.only(regions).draw(slice(None), self.product))

    def _keep(self, drawn: Tensor, faces: slice) -> Tensor:
        product = multiplied(self.product[faces, None], complement(drawn))
        return complement(product) if self.adding else product

    def _keep_now(self, drawn: Tensor, faces: slice) -> Tensor:
        return self._keep(torch.zeros_like(drawn), faces)
