"""The pairs of a run: lists of them read from files, and their faces."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.planted import plant, read_face
from xfr_plugin.evaluation.planted_protocol import PlantedPair
from xfr_plugin.evaluation.planting import Planting, RegionsOf, read_plantings
from xfr_plugin.evaluation.protocol import EvaluationPair
from xfr_plugin.faces.lfw import read_mesh_regions, read_pairs, read_people
from xfr_plugin.faces.regions import template_regions

__all__ = [
    "FaceFolder",
    "Half",
    "PairEntry",
    "PairList",
    "RegionSource",
    "balanced",
    "in_half",
    "person_of",
    "read_pair_list",
]

Half: TypeAlias = Literal["select", "report", "all"]
"""Half of the people, by a hash of their names: choose methods and constants on one, and report on the other."""

RegionSource: TypeAlias = Literal["auto", "mesh", "template"]
"""Where named regions come from: face meshes beside the faces, the template, or meshes where there are any."""

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class PairEntry(BaseModel):
    """A pair of a run, by its files.

    Attributes:
        probe: file, relative to the folder of faces.
        reference: the same.
        genuine: whether both show one person (before anything was planted).
        planting: what is planted into the probe, if anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probe: str
    reference: str
    genuine: bool
    planting: Planting | None = None

    @classmethod
    def of(cls, planting: Planting) -> PairEntry:
        """The pair of a planting."""
        return cls(
            probe=planting.probe,
            reference=planting.reference,
            genuine=planting.game == "dissimilar",
            planting=planting,
        )

    @property
    def name(self) -> str:
        """Identifies the pair in a run."""
        plain = f"{self.probe} | {self.reference}"
        if self.planting is None:
            return plain
        p = self.planting
        kind = f"{p.game} {'control ' if p.control else ''}{p.region} {p.blending} {p.strength:g}"
        return f"{kind}: {plain} | {p.donor}"

    @property
    def files(self) -> tuple[str, ...]:
        """All faces that it is made of."""
        return (self.probe, self.reference, *([self.planting.donor] if self.planting else []))


class PairList(BaseModel):
    """What a file of pairs holds: pairs, people to draw plantings from, or plantings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: tuple[PairEntry, ...] = ()
    people: tuple[str, ...] = ()
    plantings: tuple[Planting, ...] = ()


def read_pair_list(path: Path) -> PairList:
    """Read a list of pairs.

    It may be LFW's (`pairs*.txt`), LFW's people (`people*.txt`), a CSV with the columns `probe`, `reference` and
    `genuine` (1 or 0), or a manifest of plantings (JSON), whose pairs before the planting are then the pairs.

    Raises:
        InputError: missing, or none of these.
    """
    if not path.is_file():
        raise InputError(f"no file of pairs at {path}")
    if path.suffix == ".json":
        plantings = tuple(read_plantings(path))
        clean = [PairEntry.of(p).model_copy(update={"planting": None}) for p in plantings if not p.control]
        return PairList(pairs=tuple(dict.fromkeys(clean)), plantings=plantings)
    if path.suffix == ".csv":
        pairs = _read_csv(path)
        return PairList(pairs=pairs, people=_people_of(pairs))
    try:
        people = read_people(path)
    except (InputError, ValueError):
        pairs = tuple(
            PairEntry(probe=pair.probe, reference=pair.reference, genuine=pair.same)
            for pair in read_pairs(path)
        )
        return PairList(pairs=pairs, people=_people_of(pairs))
    return PairList(people=tuple(people))


def in_half(person: str, half: Half) -> bool:
    """Whether a person is in a half; see `Half`."""
    wanted = {"select": 0, "report": 1}.get(half)
    return wanted is None or hashlib.sha256(person.encode()).digest()[0] % 2 == wanted


def person_of(file: str) -> str:
    """The person of a face: the name of its folder."""
    return Path(file).parent.as_posix()


def balanced(pairs: Iterable[PairEntry], half: Half, limit: int | None) -> list[PairEntry]:
    """Pairs of one half of the people, genuine and impostor by turns, each pair once, at most `limit`."""
    kept = [p for p in dict.fromkeys(pairs) if all(in_half(person_of(file), half) for file in p.files)]
    kinds = ([p for p in kept if p.genuine], [p for p in kept if not p.genuine])
    turns = [pair for turn in zip_longest(*kinds) for pair in turn if pair is not None]
    return turns[:limit]


class FaceFolder:
    """Aligned faces in a folder, with their named regions.

    Args:
        folder: of the faces; for LFW's layout also the folder above `lfw112`.
        size: height and width that faces are read at.
        regions: see `RegionSource`.
        example: a file that must be there, by which the folder is found.

    Raises:
        InputError: the file is not there, or there are no meshes though they were asked for.
    """

    def __init__(
        self, folder: Path, size: tuple[int, int], regions: RegionSource = "auto", example: str | None = None
    ) -> None:
        places = (folder, folder / "lfw112")
        found = [place for place in places if place.is_dir() and (not example or (place / example).exists())]
        found = found if example else found[::-1]
        if not found:
            raise InputError(f"no faces at {folder}" + (f": {example} is not there" if example else ""))
        self.folder, self.size = found[0], size
        meshes = [place for place in (folder, folder.parent) if (place / "mesh468_aligned.npz").is_file()]
        if regions == "mesh" and not meshes:
            raise InputError(f"no face meshes (mesh468_aligned.npz, regions.json) at {folder}")
        self.meshes = meshes[0] if meshes and regions != "template" else None
        self.regions: RegionsOf = (
            read_mesh_regions(self.meshes, size) if self.meshes else lambda _file: template_regions(size)
        )
        self.face = lru_cache(maxsize=512)(self._face)

    def photos_of(self, people: Iterable[str], half: Half = "all") -> dict[str, list[str]]:
        """Files of each person: all images in the folder of that name."""
        return {
            person: sorted(
                f"{person}/{file.name}"
                for file in (self.folder / person).glob("*")
                if file.suffix.lower() in _IMAGES
            )
            for person in people
            if in_half(person, half)
        }

    def everyone(self) -> list[str]:
        """All people: folders with images."""
        return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir())

    def digests(self, files: Iterable[str]) -> dict[str, str]:
        """Checksum of each file.

        Raises:
            InputError: one is not there, or has no named regions.
        """
        result = {}
        for file in sorted(set(files)):
            try:
                content = (self.folder / file).read_bytes()
            except OSError as error:
                raise InputError(f"{file} is not in {self.folder}: check --faces and --pairs") from error
            self.regions(file)
            result[file] = hashlib.sha256(content).hexdigest()[:16]
        return result

    def load(self, entry: PairEntry) -> EvaluationPair:
        """Read the faces of a pair, and plant what is to be planted.

        Raises:
            PhotoError: a face cannot be read.
            InputError: a region to be planted is empty on the face.
        """
        probe, regions = self.face(entry.probe), self.regions(entry.probe)
        pair = EvaluationPair(
            name=entry.name,
            probe=_tensor(probe),
            reference=self.pixels(entry.reference),
            genuine=entry.genuine,
            probe_regions=regions,
            reference_regions=self.regions(entry.reference),
        )
        if entry.planting is None:
            return pair
        planted = plant(probe, self.face(entry.planting.donor), entry.planting, regions)
        return PlantedPair(**vars(pair) | {"probe": _tensor(planted)}, planting=entry.planting)

    def pixels(self, file: str) -> Tensor:
        """A face as 8-bit RGB, 3×H×W."""
        return _tensor(self.face(file))

    def _face(self, file: str) -> NDArray[np.float32]:
        return read_face(self.folder / file, self.size)


def _tensor(face: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.rint(face.transpose(2, 0, 1) * 255).astype(np.uint8))


def _people_of(pairs: Sequence[PairEntry]) -> tuple[str, ...]:
    return tuple(sorted({person for p in pairs for file in p.files if (person := person_of(file)) != "."}))


def _read_csv(path: Path) -> tuple[PairEntry, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(_csv_pair(row, number, path) for number, row in enumerate(rows, start=2))


def _csv_pair(row: Mapping[str, str], line: int, path: Path) -> PairEntry:
    truth = {"1": True, "true": True, "0": False, "false": False}
    genuine = truth.get((row.get("genuine") or "").strip().lower())
    if not row.get("probe") or not row.get("reference") or genuine is None:
        raise InputError(f"{path.name}, line {line}: a pair needs probe, reference and genuine (1 or 0)")
    return PairEntry(probe=row["probe"], reference=row["reference"], genuine=genuine)
