"""Faces and their regions a little off, as they are in practice: moved together, or with bent outlines."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["small_moves", "warped", "wobbled"]

_KNOTS = 4
_ROTATION, _SCALE, _SHIFT = 3.0, 0.03, 0.02


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


def small_moves(chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Turns by up to 3°, changes of size by up to 3 % and shifts by up to 2 % of faces that are chosen, N×2×3."""
    draws = 2 * torch.rand(len(chosen), 4, generator=generator) - 1
    angle, size = draws[:, 0] * math.radians(_ROTATION), (draws[:, 1] * _SCALE).exp()
    cosine, sine, shift = size * angle.cos(), size * angle.sin(), 2 * _SHIFT * draws[:, 2:]
    rows = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).view(-1, 2, 3)
    return torch.where(chosen[:, None, None], rows, torch.eye(2, 3))


def warped(values: Tensor, moves: Tensor, mode: str = "bilinear") -> Tensor:
    """Images or masks N×C×H×W, moved; black comes in at the borders, as in aligned crops."""
    grid = functional.affine_grid(moves.to(values.device), list(values.shape), align_corners=False)
    return functional.grid_sample(values, grid, mode=mode, align_corners=False)
