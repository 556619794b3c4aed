"""The pairs of a run: lists of them read from files, and their faces."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import read_text, shown
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.occluders.covered import Cover, CoveredPair
from xfr_plugin.evaluation.occluders.photographed import PhotographedPair, open_photograph
from xfr_plugin.evaluation.protocol import EvaluationPair
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedPair
from xfr_plugin.faces.folder import FaceFolder, as_pixels
from xfr_plugin.faces.lfw import read_pairs, read_people
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import REGION_NAMES
from xfr_plugin.swaps.planting import Planting, plant, read_plantings

__all__ = [
    "PairEntry",
    "PairList",
    "load_pair",
    "person_of",
    "read_pair_list",
]


class PairEntry(Document):
    """A pair of a run, by its files.

    Attributes:
        probe: file, relative to the folder of faces.
        reference: the same.
        genuine: whether both show one person (before anything was planted).
        planting: what is planted into the probe, if anything.
        cover: what the probe wears, if it is judged by that.
        photographed: the probe is a file of the folder of photographs, to be drawn on.
    """

    probe: str
    reference: str
    genuine: bool
    planting: Planting | None = None
    cover: Cover | None = None
    photographed: bool = False

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
        if self.photographed:
            return f"photograph: {plain}"
        if self.cover is not None:
            return f"{self.cover.kind}: {plain} | {self.cover.clean}"
        if self.planting is None:
            return plain
        p = self.planting
        kind = f"{p.game} {'control ' if p.control else ''}{p.region} {p.blending} {p.strength:g}"
        return f"{kind}: {plain} | {p.donor}"

    @property
    def files(self) -> tuple[str, ...]:
        """All aligned faces that it is made of."""
        if self.photographed:
            return (self.reference,)
        more = [self.planting.donor] if self.planting else [self.cover.clean] if self.cover else []
        return (self.probe, self.reference, *more)


class PairList(Document):
    """What a file of pairs holds: pairs, people to draw plantings from, plantings, or pairs with something worn."""

    pairs: tuple[PairEntry, ...] = ()
    people: tuple[str, ...] = ()
    plantings: tuple[Planting, ...] = ()
    covered: tuple[PairEntry, ...] = ()


def read_pair_list(path: Path) -> PairList:
    """Read a list of pairs.

    It may be LFW's (`pairs*.txt`), LFW's people (`people*.txt`), a CSV with the columns `probe`, `reference` and
    `genuine` (1 or 0), or a manifest of plantings (JSON), whose pairs before the planting are then the pairs. Rows of
    a CSV in which `covers` names regions, with spaces between, are pairs whose probe wears something: `kind` says
    what, and `clean` is another photo of the person, without it, as the reference is.

    Raises:
        InputError: missing, or none of these.
    """
    if not os.path.isfile(path):
        raise InputError(f"no file of pairs at {shown(path)}")
    if path.suffix == ".json":
        plantings = tuple(read_plantings(path))
        clean = [PairEntry.of(p).model_copy(update={"planting": None}) for p in plantings if not p.control]
        return PairList(pairs=tuple(dict.fromkeys(clean)), plantings=plantings)
    if path.suffix == ".csv":
        rows = _read_csv(path)
        pairs, covered = (tuple(row for row in rows if bool(row.cover) == worn) for worn in (False, True))
        return PairList(pairs=pairs, people=_people_of(rows), covered=covered)
    try:
        people = read_people(path)
    except (InputError, ValueError):
        pairs = tuple(
            PairEntry(probe=pair.probe, reference=pair.reference, genuine=pair.same)
            for pair in read_pairs(path)
        )
        return PairList(pairs=pairs, people=_people_of(pairs))
    return PairList(people=tuple(people))


def person_of(file: str) -> str:
    """The person of a face: the name of its folder."""
    return Path(file).parent.as_posix()


def load_pair(folder: FaceFolder, entry: PairEntry, photographs: Path | None = None) -> EvaluationPair:
    """Read the faces of a pair, and plant what is to be planted.

    Args:
        folder: of aligned faces.
        entry: which pair.
        photographs: folder of the photograph that a probe is found in, where it is not aligned yet.

    Raises:
        PhotoError: a face cannot be read.
        FaceError: no face is found in a photograph.
        InputError: a region to be planted is empty on the face.
    """
    if entry.photographed:
        return _from_photograph(folder, entry, photographs or folder.folder)
    probe, regions = folder.face(entry.probe), folder.regions(entry.probe)
    pair = EvaluationPair(
        name=entry.name,
        probe=as_pixels(probe),
        reference=folder.pixels(entry.reference),
        genuine=entry.genuine,
        probe_regions=regions,
        reference_regions=folder.regions(entry.reference),
        files=entry.files,
    )
    if entry.cover is not None:
        clean = entry.cover.clean
        return CoveredPair(
            **vars(pair), cover=entry.cover, clean=folder.pixels(clean), clean_regions=folder.regions(clean)
        )
    if entry.planting is None:
        return pair
    donor = entry.planting.donor
    planted = plant(probe, folder.face(donor), entry.planting, regions, folder.regions(donor))
    return PlantedPair(
        **vars(pair) | {"probe": as_pixels(planted)}, planting=entry.planting, before=pair.probe
    )


def _from_photograph(folder: FaceFolder, entry: PairEntry, photographs: Path) -> PhotographedPair:
    photo, probe, landmarks = open_photograph(photographs / entry.probe, folder.size)
    return PhotographedPair(
        name=entry.name,
        probe=probe,
        reference=folder.pixels(entry.reference),
        genuine=entry.genuine,
        probe_regions=find_regions(probe[None] / 255)[0],
        reference_regions=folder.regions(entry.reference),
        files=entry.files,
        photo=photo,
        landmarks=landmarks,
    )


def _people_of(pairs: Sequence[PairEntry]) -> tuple[str, ...]:
    return tuple(sorted({person for p in pairs for file in p.files if (person := person_of(file)) != "."}))


def _read_csv(path: Path) -> tuple[PairEntry, ...]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, "file of pairs"), newline="")))
    except csv.Error as error:
        raise InputError(f"the pairs in {shown(path)} cannot be read: {error}") from error
    return tuple(_csv_pair(row, number, path) for number, row in enumerate(rows, start=2))


def _csv_pair(row: Mapping[str, str], line: int, path: Path) -> PairEntry:
    truth = {"1": True, "true": True, "0": False, "false": False}
    genuine = truth.get((row.get("genuine") or "").strip().lower())
    if not row.get("probe") or not row.get("reference") or genuine is None:
        raise InputError(f"{path.name}, line {line}: a pair needs probe, reference and genuine (1 or 0)")
    cover = None
    if regions := (row.get("covers") or "").split():
        unknown = [region for region in regions if region not in REGION_NAMES]
        if unknown or not genuine or not row.get("clean"):
            raise InputError(
                f"{path.name}, line {line}: what is covered needs a genuine pair, `clean`, and named regions"
                + (f", of which {unknown[0]!r} is none" if unknown else "")
            )
        cover = Cover(kind=row.get("kind") or "something", regions=tuple(regions), clean=row["clean"])
    return PairEntry(probe=row["probe"], reference=row["reference"], genuine=genuine, cover=cover)
