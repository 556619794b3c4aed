"""Putting one region of a donor into a face: pasted, feathered, or seamless; feathered also into many at once."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.options import checked_choice
from xfr_plugin.errors import InputError
from xfr_plugin.swaps.exchange import region_changes
from xfr_plugin.swaps.masks import FeatheredMasks, grown
from xfr_plugin.swaps.seamless import seamless_changes

__all__ = ["Blending", "blend", "blend_region"]

Blending: TypeAlias = Literal["feather", "hard", "poisson", "whole"]
"""`feather`: the donor, shifted to the face's colour along the seam, fades in over a few pixels. `hard`: its pixels
as they are. `poisson`: the donor's gradients are kept and its colours are solved for (Perez, Gangnet and Blake,
SIGGRAPH 2003). `whole`: as `feather`, of features that are moved onto the face's and kept whole, see `swaps.whole`;
it needs the regions of both faces, and so can be planted, and not blended by a mask."""

Face: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]


def blend_region(
    face: Face, donor: Face, mask: Mask, blending: Blending = "feather", strength: float = 1.0
) -> Face:
    """Replace a region of a face by that of an aligned donor.

    Args:
        face: H×W×3 in [0, 1].
        donor: of the same shape.
        mask: H×W; the region. Two pixels (of 112) around it come along, so that the whole feature does.
        blending: see `Blending`; not `whole`.
        strength: 0…1, the share of the donor; 1 replaces the region.

    Returns:
        The blended face, H×W×3 in [0, 1].

    Raises:
        InputError: shapes differ, an empty mask, an unknown blending, or a strength outside 0…1.
    """
    if face.shape != donor.shape or face.shape != (*mask.shape, 3):
        raise InputError(
            f"face {face.shape}, donor {donor.shape} and mask {mask.shape} must be of one size, the faces in RGB"
        )
    if not mask.any():
        raise InputError("the region to be replaced is empty on this face")
    if not 0 <= strength <= 1:
        raise InputError(f"strength must be between 0 and 1, got {strength}")
    checked_choice("blending", blending, "feather", "hard", "poisson")
    masks = grown(torch.from_numpy(mask[None].astype(np.bool_)))
    own, theirs = (x.transpose(2, 0, 1).astype(np.float64) for x in (face, donor))
    if blending == "poisson":
        changes = seamless_changes(own, theirs, masks[0].numpy())
    elif blending == "hard":
        changes = masks.numpy() * (theirs - own)
    else:
        faces, donors = (torch.from_numpy(x[None]) for x in (own, theirs))
        changes = region_changes(faces, donors, FeatheredMasks.of(masks))[0, 0].numpy()
    return (own + strength * changes).clip(0, 1).transpose(1, 2, 0).astype(np.float32)


def blend(faces: Tensor, donors: Tensor, masks: Tensor) -> Tensor:
    """Put a region of each donor into a face, feathered.

    Args:
        faces: N×C×H×W in [0, 1].
        donors: of the same shape.
        masks: of bools, grown, N×1×H×W; an empty one leaves the face as it is.

    Returns:
        N×C×H×W in [0, 1], in steps of 1/255.
    """
    changes = region_changes(faces, donors, FeatheredMasks.of(masks))
    mixed = ((faces + changes[:, 0]).clamp(0, 1) * 255).round() / 255
    return torch.where(masks.any(dim=-1, keepdim=True).any(dim=-2, keepdim=True), mixed, faces)
