"""Bringing the regions of donors onto those of a face, so that features stay whole and lie in place.

A donor's region is moved by the map without rotation that takes the centre and the extent of its mask to those of the
face's: aligned faces are upright, and masks are known for every face, where outlines are not always.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.faces.regions import OUTSIDE
from xfr_plugin.swaps.masks import Box
from xfr_plugin.swaps.regions import FaceRegions

__all__ = ["moved", "moves"]

_STRETCH = 1.6
"""By how much a region is stretched or shrunk at most: what is beyond is a badly found outline."""


def moves(theirs: Sequence[FaceRegions], own: FaceRegions) -> Tensor:
    """How donors are moved so that each region lies where a face has it.

    Args:
        theirs: regions of each of K donors.
        own: regions of the face.

    Returns:
        K×R×2×2: for x and y the scale and the shift that give a place of the donor for every place of the face, both
        in −1…1.
    """
    return torch.stack([_moves(donor, own) for donor in theirs])


def moved(donors: Tensor, by: Tensor, box: Box) -> Tensor:
    """What donors show in a box of the face when they are moved.

    Args:
        donors: K×C×H×W.
        by: of each, K×2×2, see `moves`.
        box: rows and columns of the face.

    Returns:
        K×C×h×w.
    """
    inside = donors[:, :, box[0], box[1]]
    if bool((by == torch.tensor([1.0, 0.0]).to(by)).all()):
        return inside
    scale, shift = by[..., 0], by[..., 1]
    length, middle = (torch.tensor(numbers).to(by) for numbers in _within(box, donors.shape[2:]))
    matrices = torch.cat((torch.diag_embed(scale * length), (scale * middle + shift)[..., None]), dim=2)
    grid = functional.affine_grid(
        matrices.to(donors), [len(donors), 1, *inside.shape[2:]], align_corners=False
    )
    return functional.grid_sample(donors, grid, padding_mode="border", align_corners=False)


def _within(box: Box, size: Sequence[int]) -> tuple[list[float], list[float]]:
    """Length and middle of a box by x and y, where the whole reaches from −1 to 1."""
    sides = [(side.start, side.stop, whole) for side, whole in zip(box, size, strict=True)][::-1]
    lengths = [(stop - start) / whole for start, stop, whole in sides]
    return lengths, [(start + stop) / whole - 1 for start, stop, whole in sides]


def _moves(donor: FaceRegions, own: FaceRegions) -> Tensor:
    """Scale and shift of each region, R×2×2."""
    theirs, wanted = donor.extents, own.extents
    scale = (theirs[:, 1] / wanted[:, 1]).clamp(1 / _STRETCH, _STRETCH)
    shift = theirs[:, 0] - scale * wanted[:, 0]
    both = torch.from_numpy(donor.present & own.present)
    moved = torch.tensor([name not in OUTSIDE for name in own.names]) & both
    scale = torch.where(moved[:, None], scale, torch.ones(()).double())
    shift = torch.where(moved[:, None], shift, torch.zeros(()).double())
    return torch.stack((scale, shift), dim=2)
