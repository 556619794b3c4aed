"""What stands where a region of a face is removed: the choice on which every claim about that region depends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from xfr_plugin.attr._base.scoring import gaussian_blurred
from xfr_plugin.attr.intervention.players import GROUPINGS, Players
from xfr_plugin.errors import InputError
from xfr_plugin.swaps.donors import as_images, composite_faces, population_face
from xfr_plugin.swaps.exchange import region_changes
from xfr_plugin.swaps.masks import FeatheredMasks
from xfr_plugin.swaps.placing import placed
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
        """What the removal of each region adds to a face, K×R×C×H×W: see `swaps.exchange`.

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
        if self.operator in ("blur", "black"):
            is_blur = self.operator == "blur"
            put = gaussian_blurred(face[None], _SIGMA)[0] if is_blur else torch.zeros_like(face)
            return (masks.weights.to(face)[:, None] * (put - face))[None]
        donors, theirs = self._donors_for(partner)
        put = placed(donors, theirs, own) if theirs else donors
        return region_changes(face.expand(len(put), *face.shape), put, masks)

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
    for some in kept.to(changes.device).split(limit):
        added = (~some).to(flat) @ flat
        yield (face + added.unflatten(1, face.shape)).clamp(0, 1)


@cache
def _composite_regions(count: int, size: tuple[int, int], players: Players) -> list[FaceRegions]:
    return face_regions(composite_faces(count, size), True, GROUPINGS[players])
