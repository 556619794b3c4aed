"""Planted evidence: pairs in which it is known which region argues for or against a match.

Two games. *Dissimilar*: the probe of a genuine pair gets one region from an impostor; a map that tells the truth
points there as arguing against. *Similar*: the probe of an impostor pair gets one region from a mate of the
reference (another photo of the same person); the map must point there as arguing for. *Controls* have the same seam
without the evidence: the region comes from another photo of the probe's own person. A method that finds seams
instead of evidence finds those too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from xfr_plugin.base.documents import Document, RepeatedKeyError, read_json
from xfr_plugin.base.files import write_text
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap, RegionsOf
from xfr_plugin.swaps.blending import Blending, blend_region
from xfr_plugin.swaps.regions import COARSE_REGIONS, turn_of
from xfr_plugin.swaps.whole import whole_changes

__all__ = [
    "COVERED",
    "MIN_SCORE_CHANGE",
    "PLANTED_REGIONS",
    "SMALLEST",
    "TURNED",
    "Game",
    "Planting",
    "effect_of",
    "fits",
    "named_regions",
    "plan_plantings",
    "plant",
    "read_plantings",
    "write_plantings",
]

Game: TypeAlias = Literal["dissimilar", "similar"]

PLANTED_REGIONS: dict[str, tuple[str, ...]] = {
    name: named for name, named in COARSE_REGIONS.items() if name != "outside"
}
"""What is planted, as named regions of a `RegionMap`. Two of them together are written `eyes+nose`. `outside` (hair,
background) can be planted too, but is not, unless it is asked for."""

SMALLEST = 0.004
"""Share of the crop's area that a region must have to be planted: 50 pixels of 112×112."""

COVERED, TURNED = 0.97, 0.3
"""A donor that fits: share of the region that its face covers, and how much further it may be turned."""

_TRIES = 5000


_FORMAT = "xfr-plantings/1"


class Planting(Document):
    """One planted pair; files are relative to the folder of faces.

    Attributes:
        game: which game.
        region: a key of `PLANTED_REGIONS`, or several joined by `+`.
        probe: the face that the region is planted into.
        reference: its partner.
        donor: the face that the region comes from.
        control: the donor is another photo of the probe's own person.
        strength: share of the donor in the region, 0…1.
        blending: how the seam is made.
    """

    game: Game
    region: str
    probe: str
    reference: str
    donor: str
    control: bool = False
    strength: float = Field(default=1.0, gt=0, le=1)
    blending: Blending = "feather"


def effect_of(game: str, change: float) -> float:
    """A change of the score in the direction of a game: up in the similar one, down in the dissimilar one.

    A region that moves the score the other way is no evidence of what the game asks for.
    """
    return change if game == "similar" else -change


def named_regions(region: str) -> tuple[str, ...]:
    """Named regions of a planted region.

    Raises:
        InputError: no such region.
    """
    names = region.split("+")
    for name in names:
        if name not in COARSE_REGIONS:
            raise InputError(f"cannot plant {name!r}: regions are {', '.join(COARSE_REGIONS)}, joined by +")
    return tuple(named for name in names for named in COARSE_REGIONS[name])


def plan_plantings(
    people: Mapping[str, Sequence[str]],
    count: int,
    *,
    seed: int,
    games: Sequence[Game] = ("dissimilar", "similar"),
    regions: Sequence[str] = tuple(PLANTED_REGIONS),
    control: bool = False,
    strength: float = 1.0,
    blending: Blending = "feather",
    regions_of: RegionsOf | None = None,
    matched: bool = False,
) -> list[Planting]:
    """Draw plantings: `count` of each game, the regions taking turns. The same seed draws the same.

    Args:
        people: files of each person; those with fewer than two photos serve as donors of the dissimilar game
            only. A control needs people with three photos in the dissimilar game, two in the similar one.
        count: plantings of each game.
        seed: of the draw.
        games: which games.
        regions: keys of `PLANTED_REGIONS`, or several joined by `+`.
        control: draw controls instead.
        strength, blending: see `Planting`.
        regions_of: regions of each face; if given, only faces are drawn that show enough of the region (a turned
            or bearded face may hide its chin): `SMALLEST` of the crop's area.
        matched: draw only donors that fit the probe, see `fits`; otherwise a donor that is turned another way may
            plant its background.

    Raises:
        InputError: too few people with several photos, an unknown region, or none of many draws shows it.
    """
    for region in regions:
        named_regions(region)
    rng = np.random.default_rng(seed)
    drawn: list[Planting] = []
    for game in games:
        draw = _Draw(people, 3 if control and game == "dissimilar" else 2, rng)
        for turn in range(count):
            region = regions[turn % len(regions)]
            for _ in range(_TRIES):
                probe, reference, donor = draw.files(game, control)
                if regions_of is None or _usable(regions_of, region, probe, reference, donor, matched):
                    break
            else:
                raise InputError(f"of {_TRIES} draws, none shows {region} well enough for the {game} game")
            drawn.append(
                Planting(
                    game=game,
                    region=region,
                    probe=probe,
                    reference=reference,
                    donor=donor,
                    control=control,
                    strength=strength,
                    blending=blending,
                )
            )
    return drawn


def plant(
    probe: NDArray[np.float32],
    donor: NDArray[np.float32],
    planting: Planting,
    regions: RegionMap,
    theirs: RegionMap,
) -> NDArray[np.float32]:
    """Plant a region of the donor into the probe, both H×W×3 in [0, 1], with the regions of the probe and its own.

    Raises:
        InputError: the region is empty on the probe.
    """
    names = named_regions(planting.region)
    mask = regions.mask(*names)
    if planting.blending != "whole" or not mask.any():
        return blend_region(probe, donor, mask, planting.blending, planting.strength)
    changes = whole_changes(probe, donor, regions, theirs, names)
    return np.clip(probe + planting.strength * changes, 0, 1).astype(np.float32)


def fits(probe: RegionMap, donor: RegionMap, region: str) -> bool:
    """Whether a donor fits a probe: it shows the region, its face covers nearly all of it, it is turned alike."""
    mask = probe.mask(*named_regions(region))
    there = donor.face if "outside" not in region.split("+") else donor.mask(*named_regions(region))
    covered = float(there[mask].mean()) >= COVERED
    return _shows(donor, region) and covered and abs(turn_of(probe) - turn_of(donor)) <= TURNED


def _usable(
    regions_of: RegionsOf, region: str, probe: str, reference: str, donor: str, matched: bool
) -> bool:
    shown = all(_shows(regions_of(file), region) for file in (probe, reference))
    return shown and (not matched or fits(regions_of(probe), regions_of(donor), region))


def _shows(regions: RegionMap, region: str) -> bool:
    masks = (regions.mask(*COARSE_REGIONS[name]) for name in region.split("+"))
    return all(mask.mean() >= SMALLEST for mask in masks)


class _Draw:
    """Draws people and files."""

    def __init__(self, people: Mapping[str, Sequence[str]], photos: int, rng: np.random.Generator) -> None:
        self.people = people
        self.several = sorted(person for person, files in people.items() if len(files) >= photos)
        self.everyone = sorted(person for person, files in people.items() if files)
        self.rng = rng
        if len(self.several) < 2:
            raise InputError(f"plantings need at least two people with {photos} photos each")

    def files(self, game: Game, control: bool) -> tuple[str, str, str]:
        """Probe, reference and donor."""
        person = self._pick(self.several)
        if game == "dissimilar":
            first, second, *more = self._photos(person, 3 if control else 2)
            return (
                first,
                second,
                more[0] if control else self._photos(self._other(self.everyone, person), 1)[0],
            )
        other = self._other(self.several, person)
        if control:
            first, donor = self._photos(person, 2)
            return first, self._photos(other, 1)[0], donor
        reference, mate = self._photos(other, 2)
        return self._photos(person, 1)[0], reference, mate

    def _pick(self, names: Sequence[str]) -> str:
        return names[int(self.rng.integers(len(names)))]

    def _other(self, names: Sequence[str], person: str) -> str:
        while (other := self._pick(names)) == person:
            pass
        return other

    def _photos(self, person: str, number: int) -> list[str]:
        files = self.people[person]
        return [files[int(i)] for i in self.rng.choice(len(files), size=number, replace=False)]


def write_plantings(plantings: Sequence[Planting], path: Path) -> None:
    """Write a manifest that others can rerun (JSON), whole or not at all."""
    document = {"format": _FORMAT, "plantings": [planting.model_dump() for planting in plantings]}
    write_text(path, json.dumps(document, indent=1))


def read_plantings(path: Path) -> list[Planting]:
    """Read a manifest.

    Raises:
        InputError: missing, or not a manifest of plantings.
    """
    try:
        document = read_json(path.read_text(encoding="utf-8"))
        if document.get("format") != _FORMAT:
            raise InputError(f"{path.name} is not a manifest of plantings ({_FORMAT})")
        return [Planting.model_validate(entry) for entry in document["plantings"]]
    except (
        *(OSError, KeyError, TypeError, AttributeError),
        *(json.JSONDecodeError, RepeatedKeyError, ValidationError),
    ) as error:
        raise InputError(f"{path.name} is not a manifest of plantings: {error}") from error


MIN_SCORE_CHANGE = 0.1
"""Plantings that move the score by more than this are also summarised on their own: the others the recognizer
hardly noticed. Of cosines; scores of another scale are brought to theirs, see `Recognizer.score_unit`."""
