"""Does the score follow what an explanation says? Change the faces, and see.

Sets of named regions are replaced twice: by a stranger's, and by the partner's. A region that argues for a match is
one that the score falls without, and for which the partner's own adds little; one that argues against is as good as
a stranger's, and the partner's would raise the score. What is measured does not depend on the map: it is measured
for a pair, and any number of maps can be held against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from xfr_plugin.base.documents import Document
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import REGION_NAMES, RegionMap, template_regions
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.regions import FINE_REGIONS, FaceRegions, regions_of

if TYPE_CHECKING:
    from xfr_plugin.attr.intervention.removal import Operator

__all__ = [
    "CONTRADICTED",
    "RULE",
    "SETS",
    "SUPPORTED",
    "Faithfulness",
    "FaithfulnessRow",
    "PairEffects",
    "Verdict",
    "check_faithfulness",
    "pair_effects",
    "verdict_of",
]

Verdict: TypeAlias = Literal["supported", "weak", "contradicted"]
Map: TypeAlias = NDArray[np.floating]
Vector: TypeAlias = NDArray[np.float64]

SETS: tuple[tuple[str, ...], ...] = (
    ("forehead",), ("right_brow",), ("left_brow",), ("right_eye",), ("left_eye",), ("right_cheek",), ("left_cheek",),
    ("nose",), ("mouth",), ("chin",),
    ("right_eye", "left_eye"), ("right_brow", "left_brow"), ("right_cheek", "left_cheek"),
    ("right_eye", "right_brow"), ("left_eye", "left_brow"), ("nose", "mouth"),
)  # fmt: skip
"""Which regions of the face are replaced, alone or together: features of two sides can stand in for each other."""

SUPPORTED, CONTRADICTED = 2.0, -2.0
"""Bounds of the statistic, chosen on held-out people."""

RULE = (
    f"In each face {len(SETS)} sets of named regions are replaced, once by those of a face of nobody, once by the "
    "partner's. The score's fall in the one, less its rise in the other, is held against the sum of the map over the "
    "set: correlation r over the sets of both faces, after what follows from the sizes of the changes and from what "
    "the regions bring to a typical pair is taken off both. z is r times the root of the number of regions that are "
    f"seen. Supported from z = {SUPPORTED:g}, contradicted to {CONTRADICTED:g}, weak between them, and where there "
    "is nothing to test."
)

_DONOR = 8  # of the composite faces: the default explanation has the first four
_BATCH = 32
_LEAST = 4  # sets with anything in them
_NOTHING = 1e-9


class FaithfulnessRow(Document):
    """A set of regions of a face: what the map says of it, and what the score did.

    Attributes:
        face: whose regions were replaced.
        regions: names of those that the face shows.
        said: sum of the map over them, as a share of all evidence in the picture, −1…1.
        replaced: change of the score (cosine) when a stranger's stood there.
        exchanged: the same with the partner's own; None if the partner is an embedding.
        reverses: replacing them by a stranger's reverses the decision.
    """

    face: Literal["probe", "reference"]
    regions: tuple[str, ...]
    said: float = Field(ge=-1.000001, le=1.000001)
    replaced: float
    exchanged: float | None
    reverses: bool


class Faithfulness(Document):
    """What became of an explanation's claims when they were tested.

    Attributes:
        verdict: `supported`, `weak` or `contradicted`.
        statistic: the number that decides, z of the rule; None where the maps say nothing that can be tested.
        rows: the sets of the probe, then of the reference.
        rule: from rows to verdict, in words.
        forwards: images that were embedded.
    """

    verdict: Verdict
    statistic: float | None
    rows: tuple[FaithfulnessRow, ...]
    rule: str
    forwards: int


@dataclass(frozen=True, eq=False)
class PairEffects:
    """What the score does when regions of a pair's faces are replaced; whatever any map says.

    Attributes:
        regions: of each face that was changed.
        sets: which regions each set has, M×R of each face.
        replaced: change of the score by a stranger's regions, M of each face.
        exchanged: by the partner's, M of each face; empty if the partner is an embedding.
        typical: what each region brings to a typical genuine pair, R.
        score: before.
        forwards: images that were embedded.
    """

    regions: tuple[RegionMap, ...]
    sets: tuple[NDArray[np.bool_], ...]
    replaced: tuple[Vector, ...]
    exchanged: tuple[Vector, ...]
    typical: Vector
    score: float
    forwards: int

    def judge(self, maps: Sequence[Map], threshold: float) -> Faithfulness:
        """Hold maps against what was measured; see `check_faithfulness`."""
        _check_maps(maps, self.regions)
        totals = [_totals(values, regions) for values, regions in zip(maps, self.regions, strict=False)]
        statistic = self._statistic(totals)
        return Faithfulness(
            verdict=verdict_of(statistic),
            statistic=statistic,
            rows=tuple(row for side, said in enumerate(totals) for row in self._rows(side, said, threshold)),
            rule=RULE,
            forwards=self.forwards,
        )

    def _statistic(self, totals: Sequence[Vector]) -> float | None:
        """Correlation of what is said with what was measured, times the root of the number of regions."""
        said, measured, seen = [], [], 0
        for side, (sets, own) in enumerate(zip(self.sets, totals, strict=True)):
            if len(sets) < _LEAST:
                continue
            known = [np.ones(len(sets)), sets @ self.typical]
            evidence = -self.replaced[side]
            if self.exchanged:
                known.append(self.exchanged[side] - self.replaced[side])
                evidence = evidence - self.exchanged[side]
            said.append(_beyond(sets @ own, known))
            measured.append(_beyond(evidence, known))
            seen += int(sets.any(axis=0).sum())
        if not said:
            return None
        first, second = np.concatenate(said), np.concatenate(measured)
        norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
        if min(norms) < _NOTHING:
            return None
        return float(first @ second) / (norms[0] * norms[1]) * math.sqrt(seen)

    def _rows(self, side: int, said: Vector, threshold: float) -> list[FaithfulnessRow]:
        exchanged = self.exchanged[side].tolist() if self.exchanged else [None] * len(self.sets[side])
        return [
            FaithfulnessRow(
                face="reference" if side else "probe",
                regions=tuple(np.array(REGION_NAMES)[members].tolist()),
                said=float(said[members].sum()),
                replaced=float(change),
                exchanged=gained,
                reverses=bool((self.score + change >= threshold) != (self.score >= threshold)),
            )
            for members, change, gained in zip(self.sets[side], self.replaced[side], exchanged, strict=True)
        ]


def check_faithfulness(
    recognizer: Recognizer,
    inputs: tuple[Tensor, Tensor],
    maps: Sequence[Map],
    threshold: float,
    *,
    regions: Sequence[RegionMap] | None = None,
) -> Faithfulness:
    """Test the maps of a pair by changing the faces, see `RULE`. 66 forward passes for a pair.

    The correlation is with sums over named regions of the face: how evidence lies within them, and what lies around
    the face, is not tested. Every map is asked for what it says beyond the typical pair, so that one that says the
    same of all pairs is not supported.

    Args:
        recognizer: whose score is explained; the work is done where it is.
        inputs: probe and reference, 1×3×H×W in [0, 1]; or the probe and the reference's embedding, D or 1×D: only
            the probe is tested then, and by strangers' regions alone.
        maps: signed maps H×W of both, or of the probe alone.
        threshold: decision threshold on the cosine.
        regions: of each face; those of the template, if left out.

    Raises:
        InputError: inputs, maps or regions of other shapes, or maps that are not finite.
    """
    return pair_effects(recognizer, inputs, regions=regions).judge(maps, threshold)


@torch.no_grad()
def pair_effects(
    recognizer: Recognizer, inputs: tuple[Tensor, Tensor], *, regions: Sequence[RegionMap] | None = None
) -> PairEffects:
    """Measure what replacing regions does to a pair's score; see `check_faithfulness` for arguments and errors."""
    from xfr_plugin.attr.intervention.level import region_shares  # with Captum, which deciding does without
    from xfr_plugin.attr.intervention.removal import Removal, coalition_faces

    labels = _checked(recognizer, inputs, regions)
    images = [x.detach().to(recognizer.device, recognizer.dtype) for x in inputs if x.ndim == 4]
    faces = regions_of(labels, FINE_REGIONS)
    fast = fast_recognizer(recognizer)
    rows = fast.represent(torch.cat(images))
    partners = rows.flip(0)
    if len(images) == 1:
        partners = functional.normalize(inputs[1].detach().to(rows).reshape(1, -1), dim=1)
    score = float(fast.compare(rows[:1], partners[:1]))
    sets = [_sets(face) for face in faces]

    def changes(operator: Operator, side: int) -> Vector:
        other = (images[1 - side][0], faces[1 - side]) if operator == "partner" else None
        removal = Removal(operator, _DONOR + 1, "regions", images[side], _DONOR)
        added = removal.changes(images[side][0], faces[side], other, together=True)[0]
        kept = torch.from_numpy(~sets[side][:, faces[side].present])  # changes are of these alone
        found = []
        for versions in coalition_faces(images[side][0], added, kept, _BATCH):
            changed = fast.represent(versions)
            partner = partners[side].expand_as(changed)
            found.append(fast.compare(*((partner, changed) if side else (changed, partner))) - score)
        values: Vector = torch.cat(found).double().cpu().numpy() if found else np.zeros(0)
        return values

    sides = range(len(images))
    replaced = tuple(changes("population", side) for side in sides)
    exchanged = tuple(changes("partner", side) for side in sides) if len(images) == 2 else ()
    shares = region_shares(recognizer, "leave_one_out")
    return PairEffects(
        regions=labels,
        sets=tuple(sets),
        replaced=replaced,
        exchanged=exchanged,
        typical=np.array([shares.get(name, 0.0) for name in REGION_NAMES]),
        score=score,
        forwards=len(images) + sum(map(len, (*replaced, *exchanged))),
    )


def verdict_of(statistic: float | None) -> Verdict:
    """Word for a statistic, by the rule; None, where nothing could be tested, is `weak`."""
    if statistic is None:
        return "weak"
    if statistic >= SUPPORTED:
        return "supported"
    return "contradicted" if statistic <= CONTRADICTED else "weak"


def _sets(face: FaceRegions) -> NDArray[np.bool_]:
    """`SETS` of the regions that a face shows, M×R; each once."""
    rows = [np.isin(face.names, names) & face.present for names in SETS]
    distinct = dict.fromkeys(tuple(row.tolist()) for row in rows if row.any())
    return np.array(list(distinct), dtype=np.bool_).reshape(len(distinct), len(face.names))


def _totals(values: Map, regions: RegionMap) -> Vector:
    """Sums of a map over the named regions, R, as shares of all evidence; zeros of an empty map."""
    sums = np.array(list(regions.totals(values).values()))
    whole = float(np.abs(np.asarray(values, dtype=np.float64)).sum())
    return sums / whole if whole > 0 else np.zeros_like(sums)


def _beyond(values: Vector, known: Sequence[Vector]) -> Vector:
    """What is left of values when what follows from others, by least squares, is taken off."""
    design = np.stack(known, axis=1)
    left: Vector = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return left


def _checked(
    recognizer: Recognizer, inputs: tuple[Tensor, Tensor], regions: Sequence[RegionMap] | None
) -> tuple[RegionMap, ...]:
    """Named regions of the faces that are images; refuses what cannot be tested."""
    size = recognizer.input_size
    images = [x for x in inputs if x.ndim == 4]
    if len(inputs) != 2 or inputs[0].ndim != 4 or any(len(image) != 1 for image in images):
        raise InputError(
            "inputs must be one probe and one reference, 1×3×H×W each; or a probe and an embedding"
        )
    labels = tuple(regions or [template_regions(size)] * len(images))[: len(images)]
    if len(labels) < len(images) or any(one.size != size or one.names != REGION_NAMES for one in labels):
        raise InputError(f"there must be named regions of size {size[0]}×{size[1]} for each face")
    return labels


def _check_maps(maps: Sequence[Map], regions: Sequence[RegionMap]) -> None:
    size = regions[0].size
    if len(maps) < len(regions) or any(np.shape(values) != size for values in maps):
        raise InputError(
            f"there must be a map of {size[0]}×{size[1]} for each face; sum maps over colours first"
        )
    if not all(np.isfinite(values).all() for values in maps):
        raise InputError("maps hold values that are not finite")
