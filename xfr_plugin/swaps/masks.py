"""How masks of regions become soft: what comes along with a region, how it fades out, and where its seam is.

At the edge of the crop nothing lies on the other side: a region that the crop cuts off has no seam there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Box", "FeatheredMasks", "core_depths", "grown"]

Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of an image."""

_GROWTH = 2 / 112
_FEATHER = 1.5 / 112
_CORE = 5 / 112


@dataclass(frozen=True)
class FeatheredMasks:
    """Masks that fade out over a few pixels, and their seams: R×H×W for all faces, or N×R×H×W with those of each.

    Attributes:
        weights: in [0, 1].
        seams: the ring where face and donor meet; each sums to one, or to zero where there is no seam.
    """

    weights: Tensor
    seams: Tensor

    @classmethod
    def of(cls, masks: Tensor) -> FeatheredMasks:
        """Feather masks of bools."""
        height, width = masks.shape[-2:]
        rows, columns = (_blur(side, _FEATHER * height, masks.device) for side in (height, width))
        # rounded in between, as scipy.ndimage.gaussian_filter does: what was measured with it stays to the bit
        blurred = (rows @ masks.double()).float()
        seams = (_dilated(masks, 2) & _dilated(~masks, 1)).float()
        return cls(
            weights=(blurred.double() @ columns.T).float(),
            seams=seams / seams.sum(dim=(-2, -1), keepdim=True).clamp_min(1),
        )

    def shared(self) -> FeatheredMasks:
        """The same, of regions that are exchanged together: where several meet, weights sum to at most one."""
        whole = self.weights.sum(dim=-3, keepdim=True).clamp_min(1)
        return FeatheredMasks(self.weights / whole, self.seams)

    def boxes(self) -> list[Box]:
        """Where each of R masks has a weight or a seam."""
        used = (self.weights != 0) | (self.seams != 0)
        sides = [used.any(dim=dim).cpu().numpy() for dim in (2, 1)]
        return [(_span(rows), _span(columns)) for rows, columns in zip(*sides, strict=True)]

    def within(self, mask: int, box: Box) -> FeatheredMasks:
        """One of the masks, in a box that it does not reach beyond."""
        rows, columns = box
        return FeatheredMasks(
            self.weights[mask : mask + 1, rows, columns], self.seams[mask : mask + 1, rows, columns]
        )


def grown(masks: Tensor) -> Tensor:
    """Masks of bools …×H×W with the pixels around that come along: two of 112, so that whole features do."""
    return _dilated(masks, max(1, round(_GROWTH * masks.shape[-2])))


def core_depths(index: NDArray[np.integer]) -> NDArray[np.float64]:
    """Distance in pixels to the nearest pixel of another number in an image of numbers H×W, up to five of 112."""
    reach = _CORE * len(index)
    steps = [step for step in range(1, math.ceil(reach)) if step < min(index.shape)]
    upright = np.full(index.shape, reach**2)
    for step in steps:  # along columns first
        differs = index[step:] != index[:-step]
        for side in (upright[step:], upright[:-step]):
            np.minimum(side, step**2, out=side, where=differs)
    squares = upright.copy()
    for step in steps:  # then from every column to those beside it
        differs = index[:, step:] != index[:, :-step]
        left, right = np.s_[:, :-step], np.s_[:, step:]
        for own, other in ((left, right), (right, left)):
            np.minimum(squares[own], np.where(differs, 0, upright[other]) + step**2, out=squares[own])
    depths: NDArray[np.float64] = np.sqrt(squares)
    return depths


def _span(used: NDArray[np.bool_]) -> slice:
    lines = np.flatnonzero(used)
    return slice(int(lines[0]), int(lines[-1]) + 1) if len(lines) else slice(0, 0)


def _dilated(masks: Tensor, steps: int) -> Tensor:
    """Masks with all pixels that are so many steps up, down, left and right away."""
    for _ in range(steps):
        wider = masks.clone()
        wider[..., 1:, :] |= masks[..., :-1, :]
        wider[..., :-1, :] |= masks[..., 1:, :]
        wider[..., 1:] |= masks[..., :-1]
        wider[..., :-1] |= masks[..., 1:]
        masks = wider
    return masks


@cache
def _blur(length: int, sigma: float, device: torch.device) -> Tensor:
    """Matrix that blurs a line of so many pixels; what lies beyond its ends mirrors what lies before them."""
    from scipy.ndimage import gaussian_filter1d  # takes its time to import

    return torch.from_numpy(gaussian_filter1d(np.eye(length), sigma, axis=0)).to(device)
