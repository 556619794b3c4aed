"""Evidence by removal: what a pair's score loses when regions of a face are replaced by those of nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr._base.regional import Comparer, RegionalAnswer, RegionalAttribution, RegionsFrom
from xfr_plugin.attr.intervention.games import Game
from xfr_plugin.attr.intervention.level import Level, expected_of, levelled, region_shares
from xfr_plugin.attr.intervention.players import GROUPINGS, PLAYERS, Players, players_of
from xfr_plugin.attr.intervention.removal import OPERATORS, Changes, Operator, Removal, coalition_faces
from xfr_plugin.base.latest import Latest
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.base.rows import partner_units
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.regions import FaceRegions

__all__ = ["RegionIntervention", "Side"]


_KEPT_IN_A_CALL = 2**30
"""Bytes."""


def _digest(*parts: Tensor | NDArray[Any]) -> bytes:
    """Of what they hold, and where."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.detach().cpu().contiguous().view(torch.uint8).numpy() if isinstance(part, Tensor) else part
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode() + raw.tobytes())
    return digest.digest()


@dataclass(frozen=True, eq=False)
class Side:
    """A face that plays: its image C×H×W, its players, and the row that scores are read from."""

    image: Tensor
    regions: FaceRegions
    row: Tensor


class RegionIntervention(RegionalAttribution):
    """Plays a game of the regions of a face for its score against the partner; each face of a pair plays its own.

    Args:
        forward_func, threshold: see `PairAttribution`.
        players: see `Players`.
        regions: see `RegionsFrom`.
        operator: what a region is replaced by, see `Operator`.
        donors: how many composite faces of nobody stand for the population.
        population: other faces instead, N×3×H×W in [0, 1], at the size of the inputs.
        level: what evidence sums to, see `Level`.

    Raises:
        InputError: an unknown option.
    """

    shares_under: ClassVar[str]
    """Under which the expected shares of regions are kept, see `level.region_shares`."""

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        players: Players = "regions",
        regions: RegionsFrom = "found",
        operator: Operator = "population",
        donors: int = 4,
        population: Tensor | None = None,
        level: Level = "threshold",
    ) -> None:
        super().__init__(forward_func, threshold, regions=regions)
        if population is not None and (population.ndim != 4 or not len(population)):
            raise InputError(f"population must be faces N×C×H×W, got shape {tuple(population.shape)}")
        self.players = checked_choice("players", players, *PLAYERS)
        self.operator = checked_choice("operator", operator, *OPERATORS)
        self.donors = checked_at_least("donors", donors, 1)
        self.population = population
        self.level = checked_choice("level", level, "threshold", "score", "none")
        self._latest: Latest | None = None

    def keep_effects(self, limit: int, folder: Path | None = None) -> None:
        """From now on keep what was computed of the latest faces, for other pairs of them.

        For many pairs of few faces, in one thread; neither the recognizer nor the options may change meanwhile.

        Args:
            limit: bytes of memory. A face takes 8·K·R·D, with D numbers in an embedding: 60 KB of `xfr_compact128`.
            folder: where it is kept of all faces, for other processes of the same recognizer and options.
        """
        self._latest = Latest(limit, folder)

    @property
    def names_regions(self) -> bool:
        """Whether the players are a face's own named regions."""
        return super().names_regions and self.players in GROUPINGS

    def _game(self, players: int, donor: int) -> Game:
        """The game of so many players with a donor, by its number: what is drawn at random is drawn for each."""
        raise NotImplementedError

    def _players(self, images: Tensor, known: Sequence[RegionMap] | None) -> list[FaceRegions]:
        return players_of(self.players, images, self.regions == "found", known)

    def settings(self) -> dict[str, object]:
        """What the values of a face's regions follow from, but for the recognizer: for keeping them."""
        population = self.population
        return {
            "players": self.players,
            "regions": self.regions,
            "operator": self.operator,
            "donors": self.donors if population is None else _digest(population).hex(),
            "index": self.shares_under,
        }

    def _removal(self, images: Tensor, donors_from: int = 0) -> Removal:
        """What removes regions, with the composite faces after the first so many."""
        donors: Tensor | int = self.donors + donors_from if self.population is None else self.population
        return Removal(self.operator, donors, self.players, images, donors_from)

    def _answering(
        self, pair: Pair, regions: Sequence[FaceRegions]
    ) -> Callable[[Comparer, Sequence[int]], list[RegionalAnswer]]:
        removal = self._removal(pair.images)
        latest = self._latest or Latest(_KEPT_IN_A_CALL)

        def row_of(comparer: Comparer, image: Tensor) -> Tensor:
            if self.scores_only or pair.forward_args:
                return comparer.rows(image[None])[0]
            return latest.get(b"row" + _digest(image), lambda: comparer.rows(image[None])[0]).to(image.device)

        def effects_of(comparer: Comparer, own: Side) -> Tensor:
            """Effects K×R×D on the embedding, computed once for a face of several pairs: a gallery's probe."""

            def computed() -> Tensor:
                whole = own.row.double()
                return self._values(
                    own, None, removal, comparer.limit, lambda faces: comparer.rows(faces).double(), whole
                )

            return latest.get(_digest(own.image, own.regions.masks), computed).to(own.row.device)

        def answered(comparer: Comparer, own: Side, other: Side | None, partner: Tensor) -> RegionalAnswer:
            score = comparer.scores_against(own.row[None], partner)[0].double()
            if self.scores_only or self.operator == "partner" or pair.forward_args:
                values = self._values(
                    own,
                    other,
                    removal,
                    comparer.limit,
                    lambda faces: comparer.scores_against(comparer.rows(faces), partner).double(),
                    score,
                )
            else:
                values = effects_of(comparer, own) @ partner.to(own.row).double()
            return self._answer(own.regions, values, float(score))

        def answer(comparer: Comparer, faces: Sequence[int]) -> list[RegionalAnswer]:
            images = [pair.images[face] for face in faces]
            sides = [
                Side(image, regions[face], row_of(comparer, image))
                for image, face in zip(images, faces, strict=True)
            ]
            if len(sides) == 2:
                a, b = sides
                return [answered(comparer, own, other, other.row) for own, other in ((a, b), (b, a))]
            assert pair.partners is not None  # an embedding, or what a score function takes
            partner = pair.partners[faces[0] % len(pair.partners)]
            if not self.scores_only:
                (partner,) = partner_units(partner[None], sides[0].row[None])
            return [answered(comparer, sides[0], None, partner)]

        return answer

    def _answer(self, regions: FaceRegions, values: Tensor, score: float) -> RegionalAnswer:
        """Evidence from values K×R of a face's regions."""
        expected = expected_of(region_shares(self.forward_func, self.shares_under), regions)
        evidence = levelled(values, score, self.threshold, expected, self.level)
        mean, count = evidence.mean(dim=0), len(evidence)
        errors = evidence.std(dim=0) / count**0.5 if count > 1 else torch.full_like(mean, torch.nan)
        return RegionalAnswer(regions, mean, errors, float(mean.sum()), score)

    def _values(
        self,
        own: Side,
        other: Side | None,
        removal: Removal,
        limit: int,
        read: Callable[[Tensor], Tensor],
        whole: Tensor,
    ) -> Tensor:
        """Values of the players K×R×…, one row a donor, of what is read of the coalitions' faces, m×…"""
        present = torch.from_numpy(own.regions.present)
        count = int(present.sum())
        games = [self._game(count, 0)]
        partner = None if other is None else (other.image, other.regions)
        changes = removal.removed(own.image, own.regions, partner, not games[0].one_at_a_time)
        games += [self._game(count, donor) for donor in range(1, len(changes.added[0]))]
        tried = torch.cat([read(faces) for faces in _played(changes, games, limit)])
        values = whole.new_zeros(len(games), len(present), *whole.shape)
        rows = tried.split([len(game.kept) for game in games])
        for row, game, own_rows in zip(values, games, rows, strict=True):
            row[present] = game.values(own_rows, whole)
        return values


def _played(changes: Changes, games: Sequence[Game], limit: int) -> Iterator[Tensor]:
    """Faces of the coalitions of every donor's game, one after the other, in batches."""
    if all(game.one_at_a_time for game in games):
        lacking = [(~game.kept).nonzero()[:, 1].tolist() for game in games]
        yield from changes.one_by_one(
            [(donor, region) for donor, regions in enumerate(lacking) for region in regions], limit
        )
        return
    for change, game in zip(changes.whole(), games, strict=True):
        yield from coalition_faces(changes.face, change, game.kept, limit)
