"""Which plantings a run judges: single regions and pairs of them, all blendings, weaker ones, and controls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, zip_longest

from pydantic import Field

from xfr_plugin.base.documents import Document
from xfr_plugin.faces.regions import RegionsOf
from xfr_plugin.swaps.blending import Blending
from xfr_plugin.swaps.planting import PLANTED_REGIONS, Game, Planting, plan_plantings

__all__ = ["REGION_PAIRS", "PlantedPlan"]

REGION_PAIRS = tuple("+".join(two) for two in combinations(PLANTED_REGIONS, 2))
"""Every two planted regions."""


class PlantedPlan(Document):
    """How many plantings of which kind are drawn, for each game. The same plan draws the same from the same people.

    Kinds other than the first have a third of its number each. Weaker plantings are the first ones again, with the
    same faces, so that strengths can be compared. Donors fit the probe (`planting.fits`), where the regions of faces
    are known. A plan with a larger count has the same plantings, and more.

    Attributes:
        count: plantings of a single region at full strength, which take turns over `PLANTED_REGIONS` and over the
            blendings: the next planting has the next of both, so that 28 have every region with every blending.
        pairs: plant pairs of regions too (`REGION_PAIRS` in a drawn order).
        strengths: weaker strengths to plant too, 0…1.
        controls: draw controls too, single regions from another photo of the probe's own person.
        blendings: how seams are made.
        seed: of the draw.
    """

    count: int = Field(default=105, ge=1)
    pairs: bool = True
    strengths: tuple[float, ...] = (0.5,)
    controls: bool = True
    blendings: tuple[Blending, ...] = Field(default=("feather", "hard", "poisson", "whole"), min_length=1)
    seed: int = 0

    def draw(
        self, people: Mapping[str, Sequence[str]], regions_of: RegionsOf | None = None
    ) -> list[Planting]:
        """Draw the plantings; see `plan_plantings`. Kinds and games take turns, so that any part of it is balanced.

        Raises:
            InputError: too few people with several photos.
        """
        third = -(-self.count // 3)
        kinds: list[list[Planting]] = []
        for game in _GAMES:
            single = self._drawn(people, regions_of, game, self.count)
            kinds.append(single)
            if self.pairs:
                order = sorted(REGION_PAIRS, key=lambda name: _seed(self.seed, name))
                kinds.append(self._drawn(people, regions_of, game, third, "pairs", tuple(order)))
            kinds += [
                [planting.model_copy(update={"strength": strength}) for planting in single[:third]]
                for strength in self.strengths
            ]
            if self.controls:
                kinds.append(self._drawn(people, regions_of, game, third, "controls"))
        return list(dict.fromkeys(_by_turns(kinds)))

    def _drawn(
        self,
        people: Mapping[str, Sequence[str]],
        regions_of: RegionsOf | None,
        game: Game,
        count: int,
        kind: str = "single",
        regions: tuple[str, ...] = tuple(PLANTED_REGIONS),
    ) -> list[Planting]:
        drawn = plan_plantings(
            people,
            count,
            seed=_seed(self.seed, game, kind),
            games=(game,),
            regions=regions,
            control=kind == "controls",
            regions_of=regions_of,
            matched=True,
        )
        return [
            planting.model_copy(update={"blending": self.blendings[turn % len(self.blendings)]})
            for turn, planting in enumerate(drawn)
        ]


_GAMES: tuple[Game, ...] = ("dissimilar", "similar")


def _seed(*values: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, values)).encode()).digest()[:4], "big")


def _by_turns(kinds: Iterable[Sequence[Planting]]) -> list[Planting]:
    turns = zip_longest(*kinds)
    return [planting for turn in turns for planting in turn if planting is not None]
