"""Bringing the regions of donors onto those of a face, so that features stay whole and lie in place.

A donor's region is moved by the map without rotation that takes the centre and the extent of its mask to those of the
face's: aligned faces are upright, and masks are known for every face, where outlines are not always.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.swaps.regions import FaceRegions

__all__ = ["placed"]

_UNMOVED = ("background", "hair", "outside")
_STRETCH = 1.6
"""By how much a region is stretched or shrunk at most: what is beyond is a badly found outline."""


def placed(donors: Tensor, theirs: Sequence[FaceRegions], own: FaceRegions) -> Tensor:
    """Move donors so that each region lies where a face has it.

    Args:
        donors: K×C×H×W.
        theirs: regions of each donor.
        own: regions of the face.

    Returns:
        K×R×C×H×W: each donor as moved for each region.
    """
    count, (height, width) = len(own.names), donors.shape[2:]
    moves = torch.stack([_moves(donor, own) for donor in theirs]).to(donors)
    grid = functional.affine_grid(
        moves.flatten(0, 1), [len(donors) * count, 1, height, width], align_corners=False
    )
    many = donors.repeat_interleave(count, dim=0)
    moved = functional.grid_sample(many, grid, padding_mode="border", align_corners=False)
    regions: Tensor = moved.unflatten(0, (len(donors), count))
    return regions


def _moves(donor: FaceRegions, own: FaceRegions) -> Tensor:
    """For each region the matrix 2×3 that gives a place of the donor for every place of the face, in −1…1."""
    theirs, wanted = (_boxes(regions) for regions in (donor, own))
    scale = (theirs[:, 1] / wanted[:, 1]).clamp(1 / _STRETCH, _STRETCH)
    shift = theirs[:, 0] - scale * wanted[:, 0]
    both = torch.from_numpy(donor.present & own.present)
    moved = torch.tensor([name not in _UNMOVED for name in own.names]) & both
    scale = torch.where(moved[:, None], scale, torch.ones(()).double())
    shift = torch.where(moved[:, None], shift, torch.zeros(()).double())
    return torch.cat((torch.diag_embed(scale), shift[:, :, None]), dim=2)


def _boxes(regions: FaceRegions) -> Tensor:
    """Centre and standard deviations of each region's mask, R×2×2 of (x, y), in −1…1."""
    masks = torch.from_numpy(regions.masks).double()
    height, width = masks.shape[1:]
    area = masks.sum(dim=(1, 2))
    result = []
    for length, sums in ((width, masks.sum(dim=1)), (height, masks.sum(dim=2))):
        places = (torch.arange(length).double() * 2 + 1) / length - 1
        mean = sums @ places / area
        deviation = (sums @ places.square() / area - mean.square()).clamp_min(1 / length**2).sqrt()
        result.append(torch.stack((mean, deviation), dim=1))
    return torch.stack(result, dim=2)
