"""A bank of faces and what leaving out each of their regions does to the embedding: what the fast form is taught by.

Nothing but `leave_one_out` makes it: each region is replaced by that of a stranger who holds the head alike, drawn
anew for each face, so that the mean over faces is one over strangers. A part of the faces has random shapes on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import track
from torch import Tensor

from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr.intervention.attribution import Side
from xfr_plugin.attr.intervention.leave_one_out import LeaveOneOut
from xfr_plugin.attr.intervention.removal import Removal
from xfr_plugin.base.documents import Document
from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.regions import FINE_REGIONS, FaceRegions, regions_of, turn_of
from xfr_plugin.training.covers import covered
from xfr_plugin.training.engine import step_generator
from xfr_plugin.training.faces_data import FaceSet

__all__ = ["BankPlan", "FacesBank", "Strangers", "build_bank", "exact_effects"]

_SHARD = 20
_ALIKE = 24
_BATCH = {"cpu": 8, "cuda": 256}


class BankPlan(Document):
    """What a bank holds. A larger one begins with the faces of a smaller one.

    Attributes:
        faces: how many, rounded up to whole files.
        covered: share of them with random shapes.
        donors: strangers by whom each region of a face is replaced, one after the other.
        seed: of all that is drawn.
    """

    faces: int = Field(gt=0)
    covered: float = Field(ge=0, le=1)
    donors: int = Field(gt=0)
    seed: int = Field(ge=0)


@dataclass(frozen=True, eq=False)
class FacesBank:
    """N faces and their effects, see `attr.intervention.effects`.

    Attributes:
        images: uint8, N×3×H×W.
        labels: named regions, uint8, N×H×W.
        effects: of each region with each donor, N×K×R×D.
        whole: unit embeddings, N×D.
        photo: number of the photograph, N.
        covered: whether random shapes were laid on it, N.
    """

    images: Tensor
    labels: Tensor
    effects: Tensor
    whole: Tensor
    photo: Tensor
    covered: Tensor

    def __len__(self) -> int:
        return len(self.photo)

    def regions(self, some: Tensor) -> list[FaceRegions]:
        """Of some faces."""
        return regions_of([RegionMap(labels) for labels in self.labels[some].numpy()], FINE_REGIONS)


class Strangers:
    """Other people's faces that regions are replaced by.

    Args:
        faces: of the people who are trained on.
        count: so many people, drawn by the seed; one photograph of each.
        seed: of the draw.
    """

    def __init__(self, faces: FaceSet, count: int, seed: int) -> None:
        _, firsts = np.unique(faces.people, return_index=True)
        chosen = np.sort(np.random.default_rng(seed).permutation(firsts)[:count])
        self.people = faces.people[chosen]
        self._images = faces.batch(torch.from_numpy(chosen))
        self._turns = np.array([turn_of(found) for found in find_regions(self._images)])
        self._removals: dict[int, Removal] = {}

    def draw(self, own: FaceRegions, person: int, count: int, generator: torch.Generator) -> list[Removal]:
        """What removes regions of a face of this person (−1: of none of theirs), by strangers turned alike."""
        others = np.flatnonzero(self.people != person)
        nearest = np.argsort(np.abs(self._turns[others] - turn_of(own.labels)), kind="stable")
        alike = others[nearest][: max(_ALIKE, count)]
        if len(alike) < count:
            raise InputError(f"{len(alike)} strangers are too few for {count} donors: give more people")
        drawn = torch.randperm(len(alike), generator=generator)[:count]
        return [self._removal(int(alike[place])) for place in drawn.tolist()]

    def _removal(self, stranger: int) -> Removal:
        if stranger not in self._removals:
            face = self._images[stranger][None]
            self._removals[stranger] = Removal("population", face, "regions", face)
        return self._removals[stranger]


def build_bank(
    recognizer: Recognizer,
    photos: FaceSet,
    strangers: Strangers,
    plan: BankPlan,
    folder: Path,
    *,
    foreign: bool = False,
    data: str = "",
    progress: bool = True,
) -> FacesBank:
    """Build a bank in a folder, or go on with one: what is there already is not done again.

    Args:
        recognizer: whose embeddings are changed; the work is done where it is.
        photos: of whom the bank is.
        strangers: who replace regions.
        plan: what it holds.
        folder: of the bank, a file for every twenty faces.
        foreign: whether none of the strangers is among the people of the photographs.
        data: digest of the photographs.
        progress: show a progress bar on standard error.

    Raises:
        InputError: the folder holds a bank of something else.
    """
    identity = {"recognizer": fingerprint(recognizer), "data": data, **plan.model_dump(exclude={"faces"})}
    order = np.random.default_rng(plan.seed).permutation(len(photos))
    effects_of, console = exact_effects(recognizer), Console(stderr=True)

    def face_of(number: int) -> dict[str, Tensor]:
        photo, generator = int(order[number % len(order)]), step_generator(plan.seed, number)
        is_covered = float(torch.rand((), generator=generator)) < plan.covered
        face = photos.images[photo].float() / 255
        face = (covered(face, generator) * 255).round() / 255 if is_covered else face
        (own,) = regions_of(find_regions(face[None]), FINE_REGIONS)
        person = -1 if foreign else int(photos.people[photo])
        removals = strangers.draw(own, person, plan.donors, generator)
        whole, effects = effects_of(face, own, removals)
        return {
            "images": (face * 255).round().byte(),
            "labels": torch.from_numpy(own.labels.labels),
            "effects": effects.half(),
            "whole": whole,
            "photo": torch.tensor(photo),
            "covered": torch.tensor(is_covered),
        }

    shards = list(_shards(folder, plan.faces))
    for path, numbers in track(
        shards, "bank of effects", console=console, disable=not progress or not console.is_terminal
    ):
        if path.is_file():
            _check(path, identity)
            continue
        rows = [face_of(number) for number in numbers]
        write_weights(path, {name: torch.stack([row[name] for row in rows]) for name in rows[0]}, identity)
    parts = [read_weights(path)[0] for path, _ in shards]
    return FacesBank(**{part.name: torch.cat([p[part.name] for p in parts]) for part in fields(FacesBank)})


def exact_effects(
    recognizer: Recognizer,
) -> Callable[[Tensor, FaceRegions, list[Removal]], tuple[Tensor, Tensor]]:
    """Function from a face, its regions and what removes them, to its embedding D and its effects K×R×D."""
    size, device = recognizer.input_size, recognizer.device
    game = LeaveOneOut(recognizer, 0.0)
    limit = _BATCH.get(device.type, 64)
    embed = game._embed_rows(Pair(torch.full((1, 3, *size), 0.5, device=device), None, ()), limit)

    def read(faces: Tensor) -> Tensor:
        return embed(faces.to(device), torch.zeros(len(faces), dtype=torch.long, device=device)).cpu()

    @torch.no_grad()
    def effects_of(face: Tensor, own: FaceRegions, removals: list[Removal]) -> tuple[Tensor, Tensor]:
        whole = read(face[None])[0]
        side = Side(face, own, whole)
        found = [game._values(side, None, removal, limit, read, whole) for removal in removals]
        return whole, torch.cat(found)

    return effects_of


def _shards(folder: Path, count: int) -> Iterator[tuple[Path, range]]:
    for number in range(-(-count // _SHARD)):
        yield folder / f"{number:05}.safetensors", range(number * _SHARD, (number + 1) * _SHARD)


def _check(path: Path, identity: Mapping[str, Any]) -> None:
    try:
        found = read_weights(path)[1]
    except WeightsError as error:
        raise InputError(f"{path} is damaged: delete it, and the bank is built on") from error
    differing = sorted(key for key, value in identity.items() if found.get(key) != value)
    if differing:
        raise InputError(
            f"{path.parent} holds a bank with another {', '.join(differing)}: choose another run folder, or "
            "delete this one"
        )
