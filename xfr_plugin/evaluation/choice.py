"""Which pairs a run judges: those of a list, by split and limit, of the kinds that its protocols ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from xfr_plugin.evaluation.pairs import PairEntry, PairList, person_of, read_pair_list
from xfr_plugin.evaluation.plan import PlantedPlan
from xfr_plugin.evaluation.protocol import Protocol
from xfr_plugin.faces.folder import FaceFolder, Split, in_split

__all__ = ["Chosen", "PairChoice", "balanced"]


class Chosen(NamedTuple):
    """Pairs by kind, see `RunManifest`, each in its order."""

    pairs: tuple[PairEntry, ...] = ()
    plantings: tuple[PairEntry, ...] = ()
    covered: tuple[PairEntry, ...] = ()
    photographs: tuple[PairEntry, ...] = ()

    @property
    def all(self) -> tuple[PairEntry, ...]:
        """Of all kinds."""
        return (*self.pairs, *self.plantings, *self.covered, *self.photographs)


@dataclass(frozen=True)
class PairChoice:
    """What pairs are chosen from, and how many. A choice with a larger limit has the same pairs, and more.

    Attributes:
        listed: pairs or people.
        faces: folder of aligned faces.
        photographs: folder of photographs as they were taken; None if there is none.
        plan: which plantings are drawn where none are listed.
        limit: at most so many pairs of a kind, but of plantings that are drawn.
        split: half of the people.
        seed: of what is drawn.
    """

    listed: PairList
    faces: FaceFolder
    photographs: FaceFolder | None
    plan: PlantedPlan
    limit: int | None
    split: Split
    seed: int

    @property
    def people(self) -> tuple[str, ...]:
        """Who is there."""
        return tuple(self.listed.people or self.faces.everyone())

    def of(self, protocols: Collection[Protocol]) -> Chosen:
        """The pairs that some protocols judge; of photographs none without their folder."""
        plain = any(not (p.planted or p.covered or p.photographed) for p in protocols)
        return Chosen(
            tuple(balanced(self.listed.pairs, self.split, self.limit)) if plain else (),
            tuple(self._plantings()) if any(p.planted for p in protocols) else (),
            tuple(self._covered()) if any(p.covered for p in protocols) else (),
            tuple(self._photographed()) if any(p.photographed for p in protocols) else (),
        )

    def _plantings(self) -> list[PairEntry]:
        """Plantings that are listed, or drawn from the people."""
        if self.listed.plantings:
            kept = [
                p
                for p in dict.fromkeys(self.listed.plantings)
                if all(in_split(person_of(file), self.split) for file in (p.probe, p.reference, p.donor))
            ]
            return [PairEntry.of(planting) for planting in kept[: self.limit]]
        people = self.faces.photos_of(self.listed.people, self.split)
        return [PairEntry.of(planting) for planting in self.plan.draw(people, self.faces.regions)]

    def _covered(self) -> list[PairEntry]:
        """Pairs whose probe wears something: those that are listed, or LFW's, whose faces are there."""
        known = self.listed.covered
        if not known:
            with resources.as_file(resources.files("xfr_plugin.evaluation.occluders") / "lfw.csv") as path:
                known = read_pair_list(path).covered
        kept = [
            entry
            for entry in known
            if in_split(person_of(entry.probe), self.split)
            and all((self.faces.folder / file).is_file() for file in entry.files)
        ]
        return sorted(kept, key=lambda entry: self._place(entry.name))[: self.limit]

    def _photographed(self) -> list[PairEntry]:
        """A photograph of each person beside an aligned face of theirs from another one, all drawn."""
        entries = []
        taken = self.photographs.photos_of(self.people, self.split) if self.photographs else {}
        for person, files in taken.items():
            photo = min(files, key=self._place, default="")
            others = [f for f in self.faces.photos_of([person])[person] if Path(f).stem != Path(photo).stem]
            if photo and others:
                reference = min(others, key=self._place)
                entries.append(PairEntry(probe=photo, reference=reference, genuine=True, photographed=True))
        return sorted(entries, key=lambda entry: self._place(entry.name))[: self.limit]

    def _place(self, text: str) -> bytes:
        """By which what is drawn is ordered."""
        return hashlib.sha256(f"{self.seed}/{text}".encode()).digest()


def balanced(pairs: Iterable[PairEntry], split: Split, limit: int | None) -> list[PairEntry]:
    """Pairs of one half of the people, genuine and impostor by turns, each pair once, at most `limit`."""
    kept = [p for p in dict.fromkeys(pairs) if all(in_split(person_of(file), split) for file in p.files)]
    kinds = ([p for p in kept if p.genuine], [p for p in kept if not p.genuine])
    turns = [pair for turn in zip_longest(*kinds) for pair in turn if pair is not None]
    return turns[:limit]
