"""What stands where a region of a face is removed: the choice on which every claim about that region depends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr._base.masks import ranges
from xfr_plugin.attr._base.scoring import gaussian_blurred
from xfr_plugin.attr.intervention.players import GROUPINGS, Players
from xfr_plugin.base.one_thread import patched
from xfr_plugin.errors import InputError
from xfr_plugin.swaps.donors import as_images, composite_faces, population_face
from xfr_plugin.swaps.exchange import region_changes
from xfr_plugin.swaps.masks import Box, FeatheredMasks
from xfr_plugin.swaps.placing import moved, moves
from xfr_plugin.swaps.regions import FaceRegions, face_regions

__all__ = ["OPERATORS", "Changes", "Operator", "Removal", "coalition_faces"]

Operator = Literal["population", "mean", "blur", "partner", "black"]
"""What a region is replaced by: other people's, the mean face's, its own blurred, the partner's, or black."""

OPERATORS: tuple[Operator, ...] = ("population", "mean", "blur", "partner", "black")

_SIGMA = 8.0

_MADE = 64
"""Faces of coalitions made at once, at least: by torch's threads, see `base.one_thread`."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What the removal of each of P regions adds to a face, with each of K donors.

    Attributes:
        face: C×H×W.
        boxes: of each region, beyond which nothing changes.
        added: in there, K×C×h×w.
    """

    face: Tensor
    boxes: Sequence[Box]
    added: Sequence[Tensor]

    def whole(self) -> Tensor:
        """The same as images, K×P×C×H×W."""
        count = len(self.added[0]) if self.added else 1
        images = self.face.new_zeros(count, len(self.boxes), *self.face.shape)
        for place, ((rows, columns), added) in enumerate(zip(self.boxes, self.added, strict=True)):
            images[:, place, :, rows, columns] = added
        return images

    def one_by_one(self, removed: Sequence[tuple[int, int]], limit: int) -> Iterator[Tensor]:
        """The face with one region replaced, in batches of ≤ limit.

        Args:
            removed: for each version of the face the donor's number and the region's.
            limit: faces in a batch.
        """
        # boxes alone are computed and written: whole images, many at once, would not stay in the caches
        plain = self.face.clamp(0, 1)
        put = [
            (self.face[:, rows, columns] + added).clamp_(0, 1)
            for (rows, columns), added in zip(self.boxes, self.added, strict=True)
        ]
        for some in ranges(len(removed), limit):
            yield patched(
                plain, [(*self.boxes[region], put[region][donor]) for donor, region in removed[some]]
            )


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
        """What the removal of each of the P regions that a face shows adds to it, K×P×C×H×W: see `removed`."""
        return self.removed(face, own, partner, together).whole()

    def removed(
        self, face: Tensor, own: FaceRegions, partner: tuple[Tensor, FaceRegions] | None, together: bool
    ) -> Changes:
        """Remove each of the P regions that a face shows, see `swaps.exchange`.

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
        added_in = self._filling(face, masks) if self.operator in ("blur", "black") else None
        added_in = added_in or self._exchanging(face, own, masks, *self._donors_for(partner))
        every = masks.boxes()
        present = np.flatnonzero(own.present).tolist()
        boxes = [every[region] for region in present]
        return Changes(face, boxes, [added_in(*some) for some in zip(present, boxes, strict=True)])

    def _filling(self, face: Tensor, masks: FeatheredMasks) -> Callable[[int, Box], Tensor]:
        """What a region adds in a box, 1×C×h×w, where nothing is brought from another face."""
        put = gaussian_blurred(face[None], _SIGMA)[0] if self.operator == "blur" else torch.zeros_like(face)
        difference = put - face

        def added(region: int, box: Box) -> Tensor:
            return masks.within(region, box).weights.to(face) * difference[None, :, box[0], box[1]]

        return added

    def _exchanging(
        self,
        face: Tensor,
        own: FaceRegions,
        masks: FeatheredMasks,
        donors: Tensor,
        theirs: Sequence[FaceRegions],
    ) -> Callable[[int, Box], Tensor]:
        """What a region adds in a box, K×C×h×w, where donors bring theirs."""
        by = moves(theirs, own) if theirs else None

        def added(region: int, box: Box) -> Tensor:
            rows, columns = box
            put = donors[:, :, rows, columns] if by is None else moved(donors, by[:, region], box)
            inside = face[:, rows, columns].expand_as(put)
            return region_changes(inside, put, masks.within(region, box))[:, 0]

        return added

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


def coalition_faces(face: Tensor, changes: Tensor, kept: Tensor, limit: int) -> Iterator[Tensor]:
    """A face C×H×W with all but the players kept in each coalition (m×R) removed, in batches of ≤ limit.

    Args:
        face: C×H×W in [0, 1].
        changes: what the removal of each of them adds, R×C×H×W.
        kept: m×R of bools.
        limit: faces in a batch.
    """
    flat = changes.flatten(1)
    for removed in (~kept).to(flat).split(max(limit, _MADE)):
        faces = torch.addmm(face.flatten(), removed, flat).clamp_(0, 1)
        yield from faces.unflatten(1, face.shape).split(limit)


@cache
def _composite_regions(count: int, size: tuple[int, int], players: Players) -> list[FaceRegions]:
    return face_regions(composite_faces(count, size), True, GROUPINGS[players])
