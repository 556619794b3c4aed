"""Exact Shapley values of a face's regions: every coalition of them is shown to the recognizer.

Written for judging, and apart from every method, so that a fault of one is not a fault of the other; what they share
is how a region is put into a face (`swaps.exchange`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import factorial
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.exchange import exchange_together, region_changes
from xfr_plugin.swaps.masks import FeatheredMasks, grown
from xfr_plugin.swaps.planting import PLANTED_REGIONS

__all__ = [
    "OPERATORS",
    "Operator",
    "coalition_embeddings",
    "coalitions",
    "player_masks",
    "shapley_matrix",
]

Operator: TypeAlias = Literal["strangers", "blur", "mean", "black"]
"""What is put where a region is taken away: the regions of strangers (the score is then the mean over them), the
face's own, blurred beyond recognition, those of a mean face, or nothing."""

OPERATORS: tuple[Operator, ...] = ("strangers", "blur", "mean", "black")

_BLUR = 8 / 112
_CHUNK = 64


def player_masks(regions: RegionMap) -> NDArray[np.bool_]:
    """Masks of the players, which are the planted regions and last the rest, R×H×W; they divide the crop.

    A player that is not seen has none.
    """
    named = np.stack([regions.mask(*names) for names in PLANTED_REGIONS.values()])
    return np.concatenate([named, ~named.any(axis=0, keepdims=True)])


@cache
def coalitions(players: int) -> NDArray[np.bool_]:
    """All coalitions, 2^R×R: row k holds player r if bit r of k is set."""
    return (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(np.bool_)


@cache
def shapley_matrix(players: int) -> NDArray[np.float64]:
    """Shapley values of a game are this matrix, R×2^R, times its values in the order of `coalitions`."""
    there = coalitions(players)
    sizes = there.sum(axis=1)
    joined = [0.0] + [
        factorial(k - 1) * factorial(players - k) / factorial(players) for k in range(1, players + 1)
    ]
    left = [factorial(k) * factorial(players - k - 1) / factorial(players) for k in range(players)] + [0.0]
    matrix: NDArray[np.float64] = np.where(there.T, np.array(joined)[sizes], -np.array(left)[sizes])
    return matrix


@torch.no_grad()
def coalition_embeddings(
    face: Tensor,
    regions: RegionMap,
    operator: Operator,
    embed: Callable[[Tensor], Tensor],
    others: Sequence[Tensor] = (),
) -> NDArray[np.float32]:
    """Embeddings of a face of which only some players are left, for every coalition; their mean over `others`.

    Args:
        face: 8-bit RGB, 3×H×W.
        regions: of it.
        operator: what is put in the place of the others; its colour is shifted to the face's along the seam, but for
            black.
        embed: from images N×3×H×W in [0, 1] to unit embeddings N×D.
        others: faces of strangers, or the mean face, like `face`; not needed for blur and black.

    Returns:
        2^R×D in the order of `coalitions`; the last is the face's own.
    """
    image = face[None].float() / 255
    masks = FeatheredMasks.of(grown(torch.from_numpy(player_masks(regions)))).shared()
    taken = torch.from_numpy(~coalitions(len(masks.weights)))
    total = torch.zeros(())
    changes = _changes(image, masks, operator, others)
    for change in changes:
        units = [
            embed(exchange_together(image, change, chunk)[0]).float().cpu() for chunk in taken.split(_CHUNK)
        ]
        total = total + torch.cat(units)
    found: NDArray[np.float32] = (total / len(changes)).numpy()
    return found


def _changes(
    image: Tensor, masks: FeatheredMasks, operator: Operator, others: Sequence[Tensor]
) -> list[Tensor]:
    """What taking each player away adds to the image, 1×R×3×H×W, for each donor."""
    if operator == "black":
        return [-masks.weights[None, :, None] * image[:, None]]
    donors = [_blurred(image)] if operator == "blur" else [other[None].float() / 255 for other in others]
    return [region_changes(image, donor, masks) for donor in donors]


def _blurred(image: Tensor) -> Tensor:
    from scipy.ndimage import gaussian_filter  # takes its time to import

    sigma = _BLUR * image.shape[2]
    return torch.from_numpy(gaussian_filter(image.numpy(), (0, 0, sigma, sigma)))
