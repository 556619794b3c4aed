"""Planting regions into many faces at once, on any device, as `faces.blending` does it one face at a time.

Blending is by feather, or seamless by steps of relaxation, which is near to the solution of Poisson image
editing and good enough to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.regions import EXCHANGED_REGIONS

__all__ = ["blend", "grown_masks", "one_hot", "region_index", "small_moves", "turns", "warped", "wobbled"]

_COUNT = len(EXCHANGED_REGIONS)
_GROWTH = 2 / 112
_FEATHER = 1.5 / 112
_RELAXATIONS = 100
_KNOTS = 4
_ROTATION, _SCALE, _SHIFT = 3.0, 0.03, 0.02


def region_index(maps: Sequence[RegionMap]) -> Tensor:
    """Which of `EXCHANGED_REGIONS` each pixel belongs to, N×H×W of uint8."""
    labels = torch.stack([torch.from_numpy(regions.labels) for regions in maps])
    table = torch.zeros(len(maps[0].names), dtype=torch.uint8)
    for index, parts in enumerate(EXCHANGED_REGIONS.values()):
        for part in parts:
            table[maps[0].names.index(part)] = index
    return table[labels.long()]


def turns(maps: Sequence[RegionMap]) -> Tensor:
    """How far each face is turned, N: the difference of the cheeks' areas over their sum."""
    areas = torch.tensor([[m.areas()[f"{side}_cheek"] for side in ("right", "left")] for m in maps])
    return (areas[:, 0] - areas[:, 1]) / areas.sum(dim=1).clamp_min(1)


def one_hot(index: Tensor) -> Tensor:
    """Masks N×R×H×W of 0 and 1 from N×H×W."""
    return (index[:, None] == torch.arange(_COUNT, device=index.device)[:, None, None]).float()


def wobbled(index: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Regions N×H×W, bent at random and smoothly, as outlines that are off by some pixels.

    Args:
        index: as of `region_index`.
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


def grown_masks(masks: Tensor) -> Tensor:
    """Masks N×1×H×W with the pixels around that come along."""
    return _dilated(masks, max(1, round(_GROWTH * masks.shape[2])))


def blend(faces: Tensor, donors: Tensor, masks: Tensor, seamless: Tensor) -> Tensor:
    """Put a region of each donor into a face.

    Args:
        faces: N×3×H×W in [0, 1].
        donors: of the same shape.
        masks: grown masks N×1×H×W; an empty one leaves the face as it is.
        seamless: which are blended seamlessly, N.

    Returns:
        N×3×H×W in [0, 1], in steps of 1/255.
    """
    seams = _dilated(masks, 2) * (1 - _eroded(masks))
    weight = seams.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    shifted = donors + ((faces - donors) * seams).sum(dim=(2, 3), keepdim=True) / weight
    mixed = faces + _blurred(masks, _FEATHER * masks.shape[2]) * (shifted - faces)
    if bool(seamless.any()):
        mixed = mixed.clone()
        mixed[seamless] = _relaxed(faces[seamless], shifted[seamless], donors[seamless], masks[seamless])
    present = masks.amax(dim=(1, 2, 3))[:, None, None, None] > 0
    return torch.where(present, (mixed.clamp(0, 1) * 255).round() / 255, faces)


def _relaxed(faces: Tensor, start: Tensor, donors: Tensor, masks: Tensor) -> Tensor:
    """Damped relaxation of Δu = Δdonor inside the mask, u = face outside, from the shifted donor."""
    inside = masks.clone()
    inside[..., 0, :] = inside[..., -1, :] = inside[..., :, 0] = inside[..., :, -1] = 0
    kernel = _cross(donors, centre=0.0).expand(3, 1, 3, 3)
    wanted = donors * 4 - functional.conv2d(functional.pad(donors, (1,) * 4), kernel, groups=3)
    u = torch.where(inside > 0, start, faces)
    for _ in range(_RELAXATIONS):
        around = functional.conv2d(functional.pad(u, (1,) * 4), kernel, groups=3)
        u = torch.where(inside > 0, (around + wanted) / 4, u)
    return u


def _dilated(masks: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        masks = (functional.conv2d(masks, _cross(masks), padding=1) > 0).to(masks)
    return masks


def _eroded(masks: Tensor) -> Tensor:
    """Pixels whose four neighbours belong to the mask; those beyond the image do not."""
    return (functional.conv2d(masks, _cross(masks), padding=1) > 4.5).to(masks)


def _blurred(masks: Tensor, sigma: float) -> Tensor:
    radius = int(4 * sigma + 0.5)
    at = torch.arange(-radius, radius + 1, device=masks.device, dtype=masks.dtype)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = functional.pad(masks, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[None, None, :, None])
    return functional.conv2d(rows, kernel[None, None, None])


def _cross(like: Tensor, centre: float = 1.0) -> Tensor:
    return like.new_tensor([[0.0, 1.0, 0.0], [1.0, centre, 1.0], [0.0, 1.0, 0.0]])[None, None]
