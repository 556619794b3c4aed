"""Outlines a little off, as they are in practice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["wobbled"]

_KNOTS = 4


def wobbled(index: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Regions N×H×W, bent at random and smoothly, as outlines that are off by some pixels.

    Args:
        index: see `swaps.regions.region_index`.
        pixels: standard deviation of the shift at the knots from which it is interpolated, N.
        generator: of the CPU.
    """
    count, height, width = index.shape
    knots = torch.randn(count, 2, _KNOTS, _KNOTS, generator=generator) * pixels[:, None, None, None]
    shifts = functional.interpolate(knots.to(index.device), (height, width), mode="bicubic").permute(
        0, 2, 3, 1
    )
    unmoved = torch.eye(2, 3, device=index.device).expand(count, 2, 3)
    places = functional.affine_grid(unmoved, [count, 1, height, width], align_corners=False)
    places = places + shifts * (2 / shifts.new_tensor([width, height]))
    values = index[:, None].float()
    bent = functional.grid_sample(values, places, mode="nearest", padding_mode="border", align_corners=False)
    return bent[:, 0].to(index.dtype)
