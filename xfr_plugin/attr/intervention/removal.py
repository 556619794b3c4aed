"""What stands where a region of a face is removed: the choice on which every claim about that region depends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr._base.scoring import gaussian_blurred
from xfr_plugin.attr.intervention.players import GROUPINGS, Players
from xfr_plugin.errors import InputError
from xfr_plugin.swaps.donors import as_images, composite_faces, population_face
from xfr_plugin.swaps.exchange import region_changes
from xfr_plugin.swaps.masks import Box, FeatheredMasks
from xfr_plugin.swaps.placing import moved, moves
from xfr_plugin.swaps.regions import FaceRegions, face_regions

__all__ = ["OPERATORS", "Operator", "Removal", "coalition_faces"]

Operator = Literal["population", "mean", "blur", "partner", "black"]
"""What a region is replaced by: other people's, the mean face's, its own blurred, the partner's, or black."""

OPERATORS: tuple[Operator, ...] = ("population", "mean", "blur", "partner", "black")

_SIGMA = 8.0


class Removal:
    """Removes regions from faces of one size.

    Args:
        operator: see `Operator`.
        population: donors of `population`, K×C×H×W in [0, 1]; so many of the composite faces that ship, if a number.
        players: see `Players`. Donors are moved onto named regions, and stay where they are for others.
        like: images of the size, type and device of the faces.
        donors_from: leave out so many of the donors, from the first.

    Raises:
        InputError: donors of another form or size.
    """

    def __init__(
        self,
        operator: Operator,
        population: Tensor | int,
        players: Players,
        like: Tensor,
        donors_from: int = 0,
    ) -> None:
        self.operator, self.players = operator, players
        donors, theirs = self._read_donors(population, like)
        self.donors, self._theirs = donors[donors_from:], theirs[donors_from:]

    def changes(
        self, face: Tensor, own: FaceRegions, partner: tuple[Tensor, FaceRegions] | None, together: bool
    ) -> Tensor:
        """What the removal of each of the P regions that a face shows adds to it, K×P×C×H×W: see `swaps.exchange`.

        Args:
            face: C×H×W.
            own: its regions.
            partner: the other face of the pair and its regions, for the operator `partner`.
            together: whether several regions will be removed at once.

        Raises:
            InputError: the partner's regions are wanted, and there is no image of it.
        """
        masks = FeatheredMasks.of(own.grown)
        masks = masks.shared() if together else masks
        present = np.flatnonzero(own.present).tolist()
        if self.operator in ("blur", "black"):
            return self._filled(face, masks)[None, present]
        donors, theirs = self._donors_for(partner)
        by = moves(theirs, own) if theirs else None
        boxes = masks.boxes()
        changes = face.new_zeros(len(donors), len(present), *face.shape)
        for place, region in enumerate(present):
            rows, columns = box = boxes[region]  # beyond which nothing changes
            put = donors[:, :, rows, columns] if by is None else moved(donors, by[:, region], box)
            changes[:, place, :, rows, columns] = _change_in(box, face, put, masks, region)
        return changes

    def _filled(self, face: Tensor, masks: FeatheredMasks) -> Tensor:
        """The same where nothing is brought from another face: R×C×H×W."""
        put = gaussian_blurred(face[None], _SIGMA)[0] if self.operator == "blur" else torch.zeros_like(face)
        return masks.weights.to(face)[:, None] * (put - face)

    def _donors_for(self, partner: tuple[Tensor, FaceRegions] | None) -> tuple[Tensor, Sequence[FaceRegions]]:
        if self.operator != "partner":
            return self.donors, self._theirs
        if partner is None:
            raise InputError("operator 'partner' needs both faces as images: choose another")
        return partner[0][None], [partner[1]] if self.players in GROUPINGS else []

    def _read_donors(self, population: Tensor | int, like: Tensor) -> tuple[Tensor, Sequence[FaceRegions]]:
        """Donors, and their regions where they are to be moved."""
        size = (like.shape[2], like.shape[3])
        if self.operator not in ("population", "mean"):
            return like[:0], []
        if self.operator == "population" and isinstance(population, int):
            theirs = _composite_regions(population, size, self.players) if self.players in GROUPINGS else []
            return as_images(composite_faces(population, size), like), theirs
        faces = (
            population_face(size) if isinstance(population, int) or self.operator == "mean" else population
        )
        if faces.shape[2:] != like.shape[2:]:
            raise InputError(
                f"the population's faces are {tuple(faces.shape[2:])} pixels, the inputs {size}: resize them"
            )
        named = GROUPINGS.get(self.players)
        theirs = face_regions(faces.float().cpu(), True, named) if named else []
        return as_images(faces, like), theirs


def _change_in(box: Box, face: Tensor, put: Tensor, masks: FeatheredMasks, mask: int) -> Tensor:
    """What one mask adds to a face in its box, K×C×h×w, where donors put K×C×h×w there."""
    inside = face[:, box[0], box[1]].expand_as(put)
    return region_changes(inside, put, masks.within(mask, box))[:, 0]


def coalition_faces(face: Tensor, changes: Tensor, kept: Tensor, limit: int) -> Iterator[Tensor]:
    """A face C×H×W with all but the players kept in each coalition (m×R) removed, in batches of ≤ limit.

    Args:
        face: C×H×W in [0, 1].
        changes: what the removal of each of them adds, R×C×H×W.
        kept: m×R of bools.
        limit: faces in a batch.
    """
    flat = changes.flatten(1)
    for removed in (~kept).to(changes.device).split(limit):
        alone = bool((removed.sum(dim=1) == 1).all())
        added = flat[removed.nonzero()[:, 1]] if alone else removed.to(flat) @ flat
        yield (face + added.unflatten(1, face.shape)).clamp_(0, 1)


@cache
def _composite_regions(count: int, size: tuple[int, int], players: Players) -> list[FaceRegions]:
    return face_regions(composite_faces(count, size), True, GROUPINGS[players])
