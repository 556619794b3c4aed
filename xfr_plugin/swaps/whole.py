"""Planting with features kept whole: no edge of a neighbouring feature comes along, and none of the face's own stays.

A cheek that is cut out where the face has its own brings the wing of the donor's nose, if that nose is wider. So each
named region of the donor is moved and stretched until its outline lies on the face's, the mask takes in the whole
feature of both, and leaves out what belongs to another feature of either. Written for judges, apart from how methods
place their donors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor

from xfr_plugin.faces.regions import OUTSIDE, RegionMap
from xfr_plugin.swaps.exchange import region_changes
from xfr_plugin.swaps.masks import FeatheredMasks, grown

__all__ = ["whole_changes", "whole_feature"]

Face = NDArray[np.float32]
Mask = NDArray[np.bool_]

FEATURES = ("nose", "right_eye", "left_eye", "right_brow", "left_brow", "mouth")
"""Regions with an outline that is seen; the others are skin, which may meet skin anywhere."""

_STRETCH = 1.5
"""By how much a region is stretched or shrunk at most: what is beyond is a badly found outline."""


def whole_changes(
    face: Face, donor: Face, own: RegionMap, theirs: RegionMap, names: Sequence[str]
) -> NDArray[np.float64]:
    """What named regions add to a face that takes them whole from a donor, H×W×3; faces are H×W×3 in [0, 1]."""
    pieces = [whole_feature(donor, own, theirs, name) for name in names if own.mask(name).any()]
    masks = FeatheredMasks.of(torch.from_numpy(np.stack([mask for _, mask in pieces])))
    donors = torch.stack([_tensor(moved) for moved, _ in pieces])[None]
    changes = region_changes(_tensor(face)[None], donors, masks.shared())
    total: NDArray[np.float64] = changes[0].sum(dim=0).permute(1, 2, 0).numpy()
    return total


def whole_feature(donor: Face, own: RegionMap, theirs: RegionMap, name: str) -> tuple[Face, Mask]:
    """The donor as moved for one named region, H×W×3, and which pixels of it are taken, H×W.

    Where the donor does not show the region, it is not moved.
    """
    mine, other = own.mask(name), theirs.mask(name)
    scale, offset = _move(mine, other if other.any() else mine)
    moved = np.stack(
        [affine_transform(donor[..., i], scale, offset, order=1, mode="nearest") for i in range(3)], axis=-1
    )
    labels = RegionMap(affine_transform(theirs.labels, scale, offset, order=0, mode="nearest"), theirs.names)
    is_feature = name in FEATURES
    taken = _grown(mine | labels.mask(name) if is_feature else mine)
    neighbours = [feature for feature in FEATURES if feature != name]
    kept = own.mask(*neighbours) | _grown(labels.mask(*neighbours))
    if name not in OUTSIDE:
        kept |= labels.outside & ~mine
    return moved.astype(np.float32), np.asarray(taken & ~kept)


def _move(own: Mask, theirs: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scales and offsets (rows, columns) that give a place of the donor for every place of the face."""
    (centre, spread), (their_centre, their_spread) = (_place(mask) for mask in (own, theirs))
    scale = np.clip(their_spread / spread, 1 / _STRETCH, _STRETCH)
    return scale, their_centre - scale * centre


def _place(mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and standard deviations of a mask, (rows, columns) in pixels."""
    places = np.argwhere(mask).astype(np.float64)
    return places.mean(axis=0), places.std(axis=0).clip(0.5)


def _grown(mask: Mask) -> Mask:
    return np.asarray(grown(torch.from_numpy(mask[None]))[0].numpy())


def _tensor(face: Face) -> Tensor:
    return torch.from_numpy(face.transpose(2, 0, 1).astype(np.float64))
