"""What a process of `batch` does: it holds the recognizer and the methods, and takes one job after another.

What is loaded of a job is all that a worker needs, so that it may be on another machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr import get_method
from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.registry import Method
from xfr_plugin.base.files import reason, shown
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.bulk.pairs import arrow
from xfr_plugin.bulk.store import explanation_schema, face_schema, read_rows
from xfr_plugin.errors import FaceWarning, XfrError, in_one_line
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.explanation.pipeline import (
    Face,
    FacePair,
    PairMaps,
    attribute_pairs,
    check_pair,
    decide_pair,
    embed_faces,
    explanation_of,
)
from xfr_plugin.faces import AlignedFace, Alignment, RegionMap, prepare_face
from xfr_plugin.faces.detection import Box, DetectedFace
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.backends import PAYS

if TYPE_CHECKING:
    from xfr_plugin.attr._base.pair import PairAttribution

__all__ = [
    "FaceJob",
    "Job",
    "PairJob",
    "Task",
    "Worker",
    "aligned_face",
    "content",
    "images_of",
    "region_map",
]

_BATCH = 8
"""Pairs whose methods allow it are explained in the same passes, so many at a time."""

_LARGEST = 2**29
"""Bytes of a photo's file, at most."""

_KEPT = 2**28
"""Bytes of memory in which a worker keeps what leaving out regions does to faces."""


@dataclass(frozen=True)
class Task:
    """What all workers of a run share.

    Attributes:
        recognizer: whose scores are explained.
        threshold: see `decide_pair`.
        methods: options by method.
        alignment: see `faces.Alignment`.
        check: also check each explanation.
        maps: keep the maps.
        effects: folder, if it is there, in which workers share what leaving out regions does to faces.
        batch_size: pairs in the same passes.
    """

    recognizer: Recognizer
    threshold: tuple[float, str]
    methods: Mapping[str, Mapping[str, Any]]
    alignment: Alignment = "auto"
    check: bool = False
    maps: bool = True
    effects: str | None = None
    batch_size: int = _BATCH

    @property
    def name(self) -> str:
        """Of the recognizer."""
        return self.recognizer.name

    @property
    def device(self) -> torch.device:
        """Of the recognizer."""
        return self.recognizer.device

    def worker(self) -> Worker:
        """See `Worker`."""
        return Worker(self)


@dataclass(frozen=True)
class FaceJob:
    """Photos whose faces are to be found; each by the checksum of what it holds."""

    paths: tuple[str, ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self) -> LoadedPhotos:
        """Read the photos."""
        return LoadedPhotos(self.digests, tuple(map(content, self.paths)))

    def failed(self, why: str) -> Any:
        """The table of a job that could not be done."""
        return _face_table([{"digest": digest, "error": why} for digest in self.digests])


@dataclass(frozen=True)
class PairJob:
    """Pairs that a method is to explain.

    Attributes:
        method: its name.
        pairs: their numbers.
        sides: for each, the places of probe and reference in `faces`.
        faces: part and row of each face in the store.
        folder: of the store.
    """

    method: str
    pairs: tuple[int, ...]
    sides: tuple[tuple[int, int], ...]
    faces: tuple[tuple[int, int], ...]
    folder: str

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self) -> LoadedPairs:
        """Read the faces."""
        return LoadedPairs(self.method, self.pairs, self.sides, read_rows(self.folder, self.faces))

    def failed(self, why: str) -> Any:
        """The table of a job that could not be done."""
        return _explanation_table([_failure(pair, why) for pair in self.pairs])


Job: TypeAlias = FaceJob | PairJob


@dataclass(frozen=True)
class LoadedPhotos:
    """Checksums of photos and what they hold, or why they cannot be read."""

    digests: tuple[str, ...]
    photos: tuple[bytes | str, ...]


@dataclass(frozen=True)
class LoadedPairs:
    """A `PairJob` with its faces, a table."""

    method: str
    pairs: tuple[int, ...]
    sides: tuple[tuple[int, int], ...]
    faces: Any


@dataclass
class Worker:
    """Does jobs, one at a time. What cannot be done becomes a row with a reason."""

    task: Task
    _built: dict[str, PairAttribution | str] = field(default_factory=dict)

    @own_modes()
    def __call__(self, job: LoadedPhotos | LoadedPairs) -> Any:
        """The rows of a job, a pyarrow table."""
        return self._find(job) if isinstance(job, LoadedPhotos) else self._explain(job)

    def _find(self, job: LoadedPhotos) -> Any:
        rows: list[dict[str, Any]] = []
        found: list[tuple[dict[str, Any], AlignedFace]] = []
        for digest, photo in zip(job.digests, job.photos, strict=True):
            row: dict[str, Any] = {"digest": digest}
            try:
                found.append((row, self._prepared(photo)))
            except Exception as error:  # one bad photo must not end a night's run
                row["error"] = _why(error)
            rows.append(row)
        self._embed(found)
        return _face_table(rows)

    def _prepared(self, photo: bytes | str) -> AlignedFace:
        if isinstance(photo, str):
            raise XfrError(photo)
        size, alignment = self.task.recognizer.input_size, self.task.alignment
        with ignoring(FaceWarning):  # they are among the notes
            return prepare_face(photo, size, alignment=alignment)

    def _embed(self, found: Sequence[tuple[dict[str, Any], AlignedFace]]) -> None:
        """Fill the rows of faces; where together they fail, one by one."""
        if not found:
            return
        try:
            aligned = [face for _, face in found]
            # an export is made at once, or scores would depend, by rounding, on how many were made before
            self.task.recognizer.for_forward_passes(PAYS)
            faces = embed_faces(self.task.recognizer, aligned)
            images = torch.stack([face.image for face in faces if face.image is not None])
            for (row, face), embedded, regions in zip(found, faces, find_regions(images), strict=True):
                row.update(_face_row(face, embedded, regions))
        except Exception as error:
            if len(found) == 1:
                found[0][0]["error"] = _why(error)
                return
            for one in found:
                self._embed([one])

    def _explain(self, job: LoadedPairs) -> Any:
        rows: list[dict[str, Any]] = []
        try:
            attribution = self._attribution(job.method)
            pairs = self._pairs(job, attribution.layers)
        except Exception as error:
            return _explanation_table([_failure(pair, _why(error)) for pair in job.pairs])
        together = self.task.batch_size if get_method(job.method).batchable else 1
        for start in range(0, len(pairs), together):
            chunk = slice(start, start + together)
            rows += self._rows(get_method(job.method), attribution, pairs[chunk], job.pairs[chunk])
        return _explanation_table(rows)

    def _attribution(self, name: str) -> PairAttribution:
        if name not in self._built:
            options = self.task.methods[name]
            try:
                built = get_method(name).build(self.task.recognizer, self.task.threshold[0], **options)
                if isinstance(built, RegionIntervention):
                    built.keep_effects(_KEPT, self._shared(name))
                self._built[name] = built
            except Exception as error:  # it will fail on every pair: once is enough
                self._built[name] = _why(error)
        made = self._built[name]
        if isinstance(made, str):
            raise XfrError(made)
        return made

    def _shared(self, method: str) -> Path | None:
        folder = self.task.effects
        return Path(folder) / method if folder is not None and os.path.isdir(folder) else None

    def _pairs(self, job: LoadedPairs, layers: Sequence[str]) -> list[FacePair]:
        recognizer = self.task.recognizer
        rows = job.faces.to_pylist()
        aligned = [aligned_face(row, recognizer.input_size) for row in rows]
        if layers:
            faces = embed_faces(recognizer, aligned, layers)
        else:
            faces = [_known(recognizer, row, face) for row, face in zip(rows, aligned, strict=True)]
        own = [
            replace(face, regions=region_map(row, recognizer.input_size))
            for row, face in zip(rows, faces, strict=True)
        ]
        return [decide_pair(recognizer, (own[a], own[b]), self.task.threshold) for a, b in job.sides]

    def _rows(
        self, method: Method, attribution: PairAttribution, pairs: Sequence[FacePair], numbers: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Explain pairs in the same passes; where they fail together, one by one."""
        began = time.perf_counter()
        try:
            maps = attribute_pairs(attribution, pairs, errors=True)
            seconds = (time.perf_counter() - began) / len(pairs)
            return [self._row(method, *one, seconds) for one in zip(pairs, maps, numbers, strict=True)]
        except Exception as error:
            if len(pairs) == 1:
                return [_failure(numbers[0], _why(error))]
            singles = zip(pairs, numbers, strict=True)
            return [
                row for pair, number in singles for row in self._rows(method, attribution, [pair], [number])
            ]

    def _row(
        self, method: Method, pair: FacePair, maps: PairMaps, number: int, seconds: float
    ) -> dict[str, Any]:
        options = self.task.methods[method.name]
        explanation = explanation_of(pair, maps, method, options, None, {"explain": seconds})
        row = _explanation_row(number, explanation, self.task.maps)
        if self.task.check:
            began = time.perf_counter()
            found = check_pair(self.task.recognizer, pair, maps)
            row |= {
                "verdict": found.verdict,
                "statistic": found.statistic,
                "faithfulness": found.model_dump_json(),
                "seconds": seconds + time.perf_counter() - began,
            }
        return row


def aligned_face(row: Mapping[str, Any], size: tuple[int, int]) -> AlignedFace:
    """The face of a stored row."""
    image = np.frombuffer(row["image"], dtype=np.uint8).reshape(*size, 3)
    return AlignedFace(image, _read_detected(row["detected"]), tuple(row["notes"]))


def region_map(row: Mapping[str, Any], size: tuple[int, int]) -> RegionMap:
    """The named regions of a stored row."""
    labels = np.frombuffer(row["labels"], dtype=np.uint8).reshape(size)
    return RegionMap(labels, tuple(row["names"]))


def _known(recognizer: Recognizer, row: Mapping[str, Any], aligned: AlignedFace) -> Face:
    """A face whose embedding is stored, or which is compared as an image."""
    image = images_of(recognizer, [row])[0]
    if recognizer.gives == "scores":
        return Face(image, image, aligned)
    unit = torch.tensor(row["unit"], device=recognizer.device, dtype=recognizer.dtype)
    return Face(unit, image, aligned)


def images_of(recognizer: Recognizer, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    """Images N×3×H×W of stored rows, as the recognizer takes them."""
    images = np.stack([aligned_face(row, recognizer.input_size).image for row in rows])
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2) / 255)
    return pixels.to(recognizer.device, recognizer.dtype)


def _face_row(aligned: AlignedFace, face: Face, regions: RegionMap) -> dict[str, Any]:
    return {
        "height": len(aligned.image),
        "image": aligned.image.tobytes(),
        "labels": regions.labels.tobytes(),
        "names": list(regions.names),
        "detected": _written_detected(aligned.detected),
        "notes": list(aligned.notes),
        # of a recognizer that gives scores only it would be the image once more
        "unit": face.unit.cpu().float().numpy() if face.unit.ndim == 1 else [],
    }


def _written_detected(found: DetectedFace | None) -> str | None:
    if found is None:
        return None
    points = np.asarray(found.landmarks).tolist()
    return json.dumps({"box": asdict(found.box), "landmarks": points, "confidence": found.confidence})


def _read_detected(text: str | None) -> DetectedFace | None:
    if text is None:
        return None
    kept = json.loads(text)
    return DetectedFace(Box(**kept["box"]), np.array(kept["landmarks"]), kept["confidence"])


def _explanation_row(number: int, explanation: Explanation, with_maps: bool) -> dict[str, Any]:
    sides = {"probe": explanation.probe, "reference": explanation.reference}
    maps = {
        f"{side}_map": np.ascontiguousarray(face.saliency, "<f4").tobytes() for side, face in sides.items()
    }
    return {
        "pair": number,
        "regions": [
            {"face": side, **region.model_dump()} for side, face in sides.items() for region in face.regions
        ],
        "notes": list(explanation.notes),
        "seconds": explanation.timings["explain"],
        **(maps if with_maps else {}),
    }


def _failure(number: int, why: str) -> dict[str, Any]:
    return {"pair": number, "error": why}


def _face_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    return arrow().Table.from_pylist(list(rows), schema=face_schema())


def _explanation_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    return arrow().Table.from_pylist(list(rows), schema=explanation_schema())


def content(path: str) -> bytes | str:
    """What a photo holds, or why it cannot be read."""
    name = shown(os.path.basename(path))
    if os.path.exists(path) and not os.path.isfile(path):
        return f"{name} is no file"  # a pipe would be waited for
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        return f"{name} cannot be read: {reason(error)}"
    return data if len(data) <= _LARGEST else f"{name} has more than {_LARGEST >> 20} MiB, which no photo has"


def _why(error: Exception) -> str:
    """Why something failed: our own words, of any other error its type too."""
    return " ".join(str(error).split()) if isinstance(error, XfrError) else in_one_line(error)
