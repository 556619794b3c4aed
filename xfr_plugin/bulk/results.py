"""Reading what a run has left: tables of all pairs, and any explanation as if `explain` had just returned it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.bulk.pairs import arrow
from xfr_plugin.bulk.progress import Clock, Progress
from xfr_plugin.bulk.store import (
    BatchManifest,
    FaceStore,
    explanation_schema,
    parts_of,
    read_manifest,
    read_parts,
    read_rows,
)
from xfr_plugin.bulk.work import region_map
from xfr_plugin.errors import ResultError
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, RegionEvidence
from xfr_plugin.explanation.faithfulness import Faithfulness
from xfr_plugin.explanation.pipeline import SIDES
from xfr_plugin.explanation.verification import decision

__all__ = ["BatchResults"]


class BatchResults:
    """The folder of a run.

    Args:
        folder: that `batch` wrote to.

    Attributes:
        folder: the same.
        manifest: what the run is made of.

    Raises:
        ResultError: there is no run, or it is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise ResultError(f"there is no run of `xfr batch` in {self.folder}")
        self.manifest: BatchManifest = manifest
        arrow()

    def pairs(self, columns: Sequence[str] | None = None) -> Any:
        """All pairs and their decisions, a pyarrow table; a row a pair, in order.

        Raises:
            ResultError: the run ended before they were decided.
        """
        parts = parts_of(self.folder / "pairs")
        if not parts:
            raise ResultError(
                f"no pair of {self.folder} is decided yet: the same call of `batch` goes on with the run"
            )
        return read_parts(parts, columns)

    def explanations(self, method: str, columns: Sequence[str] | None = None) -> Any:
        """All explanations by a method, a pyarrow table in the order of the pairs; failures have an `error`."""
        if method not in self.manifest.methods:
            known = ", ".join(self.manifest.methods) or "none"
            raise ResultError(f"the run has no explanations by {method!r}: it has {known}")
        parts = parts_of(self.folder / "explanations" / method)
        if not parts:
            table = explanation_schema().empty_table()
            return table if columns is None else table.select(list(columns))
        table = read_parts(parts, columns)
        return table.sort_by("pair") if "pair" in table.column_names else table

    def embeddings(self) -> tuple[list[str], NDArray[np.float32]]:
        """Names of the photos that have a face, and their unit embeddings N×D: a gallery for `search`."""
        known = {name: digest for name, digest in self._photos().items() if digest not in self._faces.failed}
        return list(known), self._faces.units(list(known.values()))

    def faceless(self) -> dict[str, str]:
        """Names of the photos that cannot be read or show no face, and why."""
        failed = self._faces.failed
        return {name: failed[digest] for name, digest in self._photos().items() if digest in failed}

    def failures(self) -> list[dict[str, Any]]:
        """What failed: pair, method (None where there was no score) and error."""
        from pyarrow import compute

        found = []
        for method in (None, *self.manifest.methods):
            columns = ["pair", "error"]
            table = self.pairs(columns) if method is None else self.explanations(method, columns)
            failed = table.filter(compute.is_valid(table.column("error"))).to_pylist()
            found += [{"pair": row["pair"], "method": method, "error": row["error"]} for row in failed]
        return found

    def explanation(self, pair: int, method: str) -> Explanation:
        """An explanation with its crops and maps, as `explain` returns it.

        Raises:
            ResultError: the pair was not explained by this method, or without its maps.
        """
        row = self._found(f"explanations/{method}", pair)
        if row is None or row["error"] is not None:
            why = "it was not asked for" if row is None else row["error"]
            raise ResultError(f"pair {pair} has no explanation by {method}: {why}")
        if row["probe_map"] is None:
            raise ResultError("the run kept no maps: there are only the numbers by region")
        decided = self._found("pairs", pair, ["score", *(f"{side}_sha256" for side in SIDES)])
        assert decided is not None
        faces = [self._face(decided[f"{side}_sha256"]) for side in SIDES]
        return _explanation(row, decided["score"], faces, method, self.manifest)

    def save_pictures(self, pairs: Iterable[int], progress: Progress | None = None) -> list[Path]:
        """Write picture and document of these pairs by every method that has explained them, below `pictures`."""
        numbers = sorted({int(pair) for pair in pairs})
        chosen = [
            (pair, method)
            for method in self.manifest.methods
            for pair in filter(self._explained(method).__contains__, numbers)
        ]
        clock = Clock("pictures", 0, len(chosen), progress)
        written: list[Path] = []
        for pair, method in chosen:
            written += self.explanation(pair, method).save(self._pictures, f"{pair:06d}-{method}")
            clock.passed(1)
        return written

    def pictures(self) -> list[Path]:
        """The pictures that `save_pictures` has written."""
        return sorted(self._pictures.glob("*.png"))

    @property
    def _pictures(self) -> Path:
        return self.folder / "pictures"

    def _explained(self, method: str) -> set[int]:
        """Numbers of the pairs that the method has explained."""
        table = self.explanations(method, ["pair", "error"])
        numbers, errors = (table.column(name).to_pylist() for name in ("pair", "error"))
        return {pair for pair, error in zip(numbers, errors, strict=True) if error is None}

    def _photos(self) -> dict[str, str]:
        """Checksums of the photos by their names."""
        found: dict[str, str] = {}
        for side in SIDES:
            columns = self.pairs([side, f"{side}_sha256"]).columns
            found |= dict(zip(*(column.to_pylist() for column in columns), strict=True))
        return found

    def _found(self, name: str, pair: int, columns: Sequence[str] | None = None) -> dict[str, Any] | None:
        """The row of a pair; of the parts, only those that may hold it are read."""
        from pyarrow import dataset

        parts = parts_of(self.folder / name)
        found = read_parts(parts, columns, dataset.field("pair") == pair).to_pylist() if parts else []
        return found[0] if found else None

    @cached_property
    def _faces(self) -> FaceStore:
        return FaceStore(self.folder / "faces")

    def _face(self, digest: str) -> dict[str, Any]:
        (row,) = read_rows(str(self._faces.folder), [self._faces.places[digest]]).to_pylist()
        return dict(row)


def _explanation(
    row: Mapping[str, Any],
    score: float,
    faces: Sequence[Mapping[str, Any]],
    method: str,
    manifest: BatchManifest,
) -> Explanation:
    probe, reference = (_face_explanation(side, row, face) for side, face in zip(SIDES, faces, strict=True))
    checked = row["faithfulness"]
    return Explanation(
        verification=decision(
            score,
            (manifest.threshold, manifest.threshold_source),
            manifest.recognizer,
            manifest.provenance,
            manifest.calibration,
        ),
        probe=probe,
        reference=reference,
        method=method,
        options=manifest.methods[method],
        timings={"explain": row["seconds"]},
        notes=tuple(row["notes"]),
        version=manifest.version,
        faithfulness=None if checked is None else Faithfulness.model_validate_json(checked),
        calibration=manifest.calibration,
    )


def _face_explanation(side: str, row: Mapping[str, Any], face: Mapping[str, Any]) -> FaceExplanation:
    height, width = face["height"], len(face["image"]) // (3 * face["height"])
    regions = [dict(found) for found in row["regions"] if found["face"] == side]
    return FaceExplanation(
        image=np.frombuffer(face["image"], dtype=np.uint8).reshape(height, width, 3),
        saliency=np.frombuffer(row[f"{side}_map"], dtype="<f4").reshape(height, width),
        regions=tuple(RegionEvidence(**{k: v for k, v in found.items() if k != "face"}) for found in regions),
        region_map=region_map(face, (height, width)),
    )
