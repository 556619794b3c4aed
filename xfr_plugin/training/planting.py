"""Planting regions into many faces at once, on any device, as `faces.blending` does it one face at a time.

Blending is by feather, or seamless by steps of relaxation, which is near to the solution of Poisson image
editing and good enough to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.reconstruction.exchange import EXCHANGED_REGIONS

__all__ = ["blend", "grown_masks", "one_hot", "region_index", "turns"]

_COUNT = len(EXCHANGED_REGIONS)
_GROWTH = 2 / 112
_FEATHER = 1.5 / 112
_RELAXATIONS = 100


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
