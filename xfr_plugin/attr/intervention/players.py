"""The players of a game: named regions, cells of a grid, or superpixels, each removed as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.superpixels import face_parts
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.regions import (
    COARSE_REGIONS,
    FINE_REGIONS,
    FaceRegions,
    Grouping,
    face_regions,
    regions_of,
)

__all__ = ["GROUPINGS", "PLAYERS", "Players", "players_of"]

Players = Literal["regions", "coarse", "grid7", "grid14", "superpixels"]
"""`regions`: each named region; `coarse`: eight, both sides together; the cells of a grid; about 50 superpixels."""

PLAYERS: tuple[Players, ...] = ("regions", "coarse", "grid7", "grid14", "superpixels")

GROUPINGS: dict[str, Grouping] = {"regions": FINE_REGIONS, "coarse": COARSE_REGIONS}
"""Of the players that are named regions."""

_SUPERPIXELS = 50


def players_of(
    players: Players, images: Tensor, found: bool, known: Sequence[RegionMap] | None = None
) -> list[FaceRegions]:
    """The players of each face.

    Args:
        players: see `Players`.
        images: faces N×C×H×W in [0, 1].
        found: whether named regions are found on each face, or the template's.
        known: the faces' named regions, if they were found before.
    """
    if players in GROUPINGS:
        if known is not None and found:
            return regions_of(known, GROUPINGS[players])
        return face_regions(images, found, GROUPINGS[players])
    if players == "superpixels":
        return [_partition(face_parts(image, "slic", _SUPERPIXELS)[0, 0].cpu().numpy()) for image in images]
    return [_partition(_grid((images.shape[2], images.shape[3]), int(players.removeprefix("grid"))))] * len(
        images
    )


def _grid(size: tuple[int, int], side: int) -> NDArray[np.int64]:
    rows, columns = (np.arange(length) * side // length for length in size)
    labels: NDArray[np.int64] = rows[:, None] * side + columns
    return labels


def _partition(labels: NDArray[np.int64]) -> FaceRegions:
    """Players from a label map H×W, 0…R−1."""
    count = int(labels.max()) + 1
    names = tuple(f"part {number + 1}" for number in range(count))
    return FaceRegions(
        labels=RegionMap(labels.astype(np.uint8), names),
        present=np.ones(count, dtype=np.bool_),
        masks=labels == np.arange(count)[:, None, None],
        grouping={name: (name,) for name in names},
    )
