"""One call from a list of pairs to their decisions and reasons, on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin._version import __version__
from xfr_plugin.attr.registry import Method, chosen_method
from xfr_plugin.base.choices import DEFAULT_RECOGNIZER, Alignment
from xfr_plugin.base.engines import Engine, opened
from xfr_plugin.base.files import make_folder, shown
from xfr_plugin.base.locks import locked
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.bulk.pairs import PairTable, arrow, read_pair_table
from xfr_plugin.bulk.progress import Clock, Progress
from xfr_plugin.bulk.results import BatchResults
from xfr_plugin.bulk.selection import Decisions, selected
from xfr_plugin.bulk.store import (
    KINDS,
    BatchManifest,
    ExplanationStore,
    FaceStore,
    parts_of,
    read_manifest,
    read_parts,
    read_rows,
    sweep,
    write_manifest,
    write_pairs,
)
from xfr_plugin.bulk.work import FaceJob, PairJob, Task, content, images_of
from xfr_plugin.errors import InputError, ResultError
from xfr_plugin.explanation.comparison import check_options
from xfr_plugin.explanation.pipeline import SIDES, RecognizerSource, open_recognizer
from xfr_plugin.explanation.verification import choose_threshold, likelihood_ratios
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.fingerprint import fingerprint, fingerprints_kept

__all__ = ["batch"]

_PHOTOS_A_JOB = 32
_PAIRS_A_JOB = 32
_COMPARED_AT_ONCE = 32

Item = TypeVar("Item")

_FACES, _PAIRS, _EXPLANATIONS, _EFFECTS = "faces", "pairs", "explanations", "effects"


def batch(
    pairs: str | os.PathLike[str] | PairTable,
    out: str | os.PathLike[str],
    *,
    gallery: str | os.PathLike[str] | None = None,
    photos: str | os.PathLike[str] | None = None,
    people: bool = False,
    methods: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    threshold: float | None = None,
    fmr: float | None = None,
    alignment: Alignment = "auto",
    select: str = "all",
    check: bool = False,
    maps: bool = True,
    pictures: str = "none",
    engine: str = "local",
    workers: int | None = None,
    retry_failed: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> BatchResults:
    """Decide many pairs, and explain those that are asked for.

    Each photo's face is found, embedded and divided into regions once, however many pairs it is in. What is done is
    on disk: called again, after whatever ended it, the run goes on; methods, and pairs of another selection, are
    added to what is there. Processes are started: a script that calls this has its work under
    `if __name__ == "__main__"`.

    Args:
        pairs: a list of pairs, see `read_pair_table`, or a table that it gave.
        out: folder of the run.
        gallery, photos, people: see `read_pair_table`.
        methods: names of attribution methods; the recognizer's default method, if left out; empty to decide only.
        options: options by method.
        recognizer, threshold, fmr, alignment, device: see `explain`.
        select: which pairs are explained, see `bulk.selection.GRAMMAR`; all are decided.
        check: also check explanations, see `faithfulness.check_faithfulness`.
        maps: keep the maps, of which pictures are made; a hundred times the numbers by region.
        pictures: which pairs get picture and document, in the words of `select`.
        engine: `local`, processes on this machine, or `ray`.
        workers: how many, each with a copy of the model; see `base.engines.opened`.
        retry_failed: try again what failed.
        progress: called with each `bulk.Step`; `ProgressBar` shows it.

    Raises:
        UnknownNameError: a method, option or engine does not exist.
        InputError: pairs cannot be read, or an argument makes no sense.
        WeightsError: the recognizer's weights cannot be used.
        ResultError: the folder holds another run, another one is at work in it, or a part of it is damaged.
    """
    table = (
        pairs
        if isinstance(pairs, PairTable)
        else read_pair_table(pairs, gallery=gallery, photos=photos, people=people, besides=out)
    )
    if workers is not None:
        checked_at_least("workers", workers, 1)
    given = options or {}
    model = open_recognizer(recognizer, device)
    chosen = choose_threshold(model, threshold, fmr)
    if pictures.strip() != "none" and not maps:
        raise InputError("pictures are made of maps: have the run keep them")
    _check_words((select, pictures), table, chosen[0])
    entries = {entry.name: entry for entry in (chosen_method(name, model) for name in _named(methods))}
    check_options(entries.values(), given)
    with fingerprints_kept():
        for entry in entries.values():
            entry.build(
                model, chosen[0], **given.get(entry.name, {})
            )  # a wrong option is an error before work begins
        manifest = _manifest(
            table, model, chosen, alignment, check, maps, _all_options(entries, given), select
        )
    folder = Path(out)
    task = Task(
        recognizer=model,
        threshold=chosen,
        methods={name: dict(given.get(name, {})) for name in entries},
        alignment=alignment,
        check=check,
        maps=maps,
        effects=str((folder / _EFFECTS).absolute()),
    )
    with closing(opened(engine, task, workers)) as workforce, locked(folder):
        known = read_manifest(folder)
        manifest = manifest if known is None else manifest.continuing(known)
        sweep(folder)
        write_manifest(folder, manifest)
        run = _Run(folder, table, task, workforce, retry_failed, progress)
        run.decide()
        run.explain(run.select(select))
        write_manifest(folder, manifest.model_copy(update=_counts(BatchResults(folder))))
    results = BatchResults(folder)
    if pictures != "none":
        results.save_pictures(run.select(pictures), progress=progress)
    return results


def _check_words(words: Sequence[str], table: PairTable, threshold: float) -> None:
    """Refuse words that select nothing known, before work begins."""
    undecided = Decisions(table.probes, np.full(len(table), np.nan), threshold, table.genuine)
    for some in words:
        selected(some, undecided)


def _counts(results: BatchResults) -> dict[str, Any]:
    """What is there of a run: explanations by method, and failures of all kinds."""
    failed = Counter(failure["method"] for failure in results.failures())
    explained = {
        name: len(results.explanations(name, ["pair"])) - failed[name] for name in results.manifest.methods
    }
    return {"explained": explained, "failures": failed.total()}


def _named(methods: Sequence[str] | None) -> Sequence[str | None]:
    return [None] if methods is None else list(methods)


def _all_options(
    entries: Mapping[str, Method], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {name: {**entry.options(), **given.get(name, {})} for name, entry in entries.items()}


def _manifest(
    table: PairTable,
    recognizer: Recognizer,
    threshold: tuple[float, str],
    alignment: Alignment,
    check: bool,
    maps: bool,
    methods: dict[str, dict[str, Any]],
    select: str,
) -> BatchManifest:
    return BatchManifest(
        version=__version__,
        recognizer=recognizer.name,
        recognizer_sha256=fingerprint(recognizer),
        provenance=recognizer.provenance,
        threshold=threshold[0],
        threshold_source=threshold[1],
        calibration=recognizer.calibration,
        alignment=alignment,
        check=check,
        maps=maps,
        pairs_sha256=table.digest(),
        pairs=len(table),
        methods=methods,
        select=(select,),
    )


@dataclass
class _Run:
    """The stages of a run."""

    folder: Path
    table: PairTable
    task: Task
    engine: Engine
    retry_failed: bool
    progress: Progress | None

    def decide(self) -> None:
        """Find all faces, decide all pairs, and write that down."""
        self.faces = FaceStore(self.folder / _FACES)
        self.digests = self._digests()
        self._check_photos()
        self._find_faces()
        table, model = self.table, self.task.recognizer
        if model.gives == "scores":
            scores = self._compared()
        else:
            scores = _scores(self.faces.units(self.digests), table.probes, table.references)
        self.decisions = Decisions(
            table.probes, scores, self.task.threshold[0], table.genuine, model.score_unit
        )
        write_pairs(
            self.folder / _PAIRS, _pair_columns(table, self.decisions, self.digests, self._reasons(), model)
        )

    def _compared(self) -> NDArray[np.float64]:
        """Scores by a recognizer that gives nothing else, asked anew by each run; NaN where a face is missing."""
        probes, references, model = self.table.probes, self.table.references, self.task.recognizer
        has_face = np.array([digest not in self.faces.failed for digest in self.digests])
        todo = np.flatnonzero(has_face[probes] & has_face[references])
        clock, found = Clock("comparing faces", 0, len(todo), self.progress), np.full(len(probes), np.nan)
        for start in range(0, len(todo), _COMPARED_AT_ONCE):
            some = todo[start : start + _COMPARED_AT_ONCE]
            sides = [images_of(model, self._rows(numbers[some])) for numbers in (probes, references)]
            found[some] = model.compare(*sides).double().cpu().numpy()
            clock.passed(len(some))
        return found

    def _rows(self, photos: NDArray[np.int64]) -> list[dict[str, Any]]:
        places = [self.faces.places[self.digests[photo]] for photo in photos]
        rows: list[dict[str, Any]] = read_rows(str(self.folder / _FACES), places).to_pylist()
        return rows

    def select(self, words: str) -> NDArray[np.int64]:
        """Numbers of the pairs that words ask for."""
        return selected(words, self.decisions)

    def explain(self, numbers: NDArray[np.int64]) -> None:
        """Explain pairs by all methods."""
        folder = self.folder / _EXPLANATIONS
        stores = {name: ExplanationStore(folder / name, self.retry_failed) for name in self.task.methods}
        by_method = [
            [
                self._job(name, some)
                for some in _chunks(
                    [int(number) for number in numbers if int(number) not in store.done], _PAIRS_A_JOB
                )
            ]
            for name, store in stores.items()
        ]
        # of all methods in turn: the time that is left would else be that of the first
        jobs = [job for some in zip_longest(*by_method) for job in some if job is not None]
        total, todo = len(numbers) * len(stores), sum(map(len, jobs))
        clock = Clock("explaining", total - todo, total, self.progress)
        make_folder(self.folder / _EFFECTS)
        for job, rows in self.engine.results(jobs):
            stores[job.method].add(rows)
            clock.passed(len(job))
        shutil.rmtree(self.folder / _EFFECTS, ignore_errors=True)

    def _digests(self) -> list[str]:
        """Checksum of each photo; of what cannot be read, one of its path."""
        clock = Clock("reading photos", 0, len(self.table.paths), self.progress)
        found = []
        for path in self.table.paths:
            found.append(_digest(path))
            clock.passed(1)
        return found

    def _check_photos(self) -> None:
        """Refuse photos that have changed: what is explained already would be of other faces."""
        parts = parts_of(self.folder / _PAIRS)
        if not parts:
            return
        before = read_parts(parts, [f"{side}_sha256" for side in SIDES])
        for side, photos in zip(SIDES, (self.table.probes, self.table.references), strict=True):
            for photo, digest in zip(photos, before.column(f"{side}_sha256").to_pylist(), strict=True):
                had_face = digest in self.faces.places and digest not in self.faces.failed
                if had_face and digest != self.digests[photo]:
                    raise ResultError(
                        f"the folder holds a run with another {shown(self.table.paths[photo])}, which has changed or "
                        "gone since: choose another folder, or bring it back"
                    )

    def _find_faces(self) -> None:
        paths = dict(zip(self.digests, map(str, self.table.paths), strict=True))
        if self.retry_failed:
            self.faces.forget_failed()
        todo = [(digest, path) for digest, path in paths.items() if digest not in self.faces.places]
        clock = Clock("finding faces", len(paths) - len(todo), len(paths), self.progress)
        jobs = [
            FaceJob(tuple(path for _, path in some), tuple(digest for digest, _ in some))
            for some in _chunks(todo, _PHOTOS_A_JOB)
        ]
        for job, rows in self.engine.results(jobs):
            self.faces.add(rows)
            clock.passed(len(job))

    def _reasons(self) -> list[str | None]:
        """Why a photo has no face, for each; None where it has."""
        return [self.faces.failed.get(digest) for digest in self.digests]

    def _job(self, method: str, numbers: Sequence[int]) -> PairJob:
        places: dict[tuple[int, int], int] = {}
        sides = [
            (
                self._place(places, self.table.probes[number]),
                self._place(places, self.table.references[number]),
            )
            for number in numbers
        ]
        return PairJob(method, tuple(numbers), tuple(sides), tuple(places), str(self.folder / _FACES))

    def _place(self, places: dict[tuple[int, int], int], photo: int) -> int:
        return places.setdefault(self.faces.places[self.digests[photo]], len(places))


def _chunks(items: Sequence[Item], size: int) -> Iterable[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _digest(path: Path) -> str:
    photo = content(str(path))
    known = f"no file: {path}".encode("utf-8", "surrogateescape") if isinstance(photo, str) else photo
    return hashlib.sha256(known).hexdigest()


def _scores(
    units: NDArray[np.float32], probes: NDArray[np.int64], references: NDArray[np.int64], chunk: int = 65536
) -> NDArray[np.float64]:
    """Cosines of pairs of unit embeddings N×D; NaN where one is missing."""
    found = np.empty(len(probes))
    for start in range(0, len(probes), chunk):
        some = slice(start, start + chunk)
        sides = (units[numbers[some]].astype(np.float64) for numbers in (probes, references))
        found[some] = np.einsum("nd,nd->n", *sides) if units.shape[1] else np.nan
    return np.clip(found, -1, 1)


def _pair_columns(
    table: PairTable,
    decisions: Decisions,
    digests: Sequence[str],
    reasons: Sequence[str | None],
    recognizer: Recognizer,
) -> dict[str, Any]:
    pa = arrow()
    names, photos = pa.array(map(_as_unicode, table.names), pa.string()), pa.array(digests, pa.string())
    missing, scores = np.isnan(decisions.scores), decisions.scores
    calibration = recognizer.calibration
    llr = likelihood_ratios(calibration, scores) if calibration else np.full(len(scores), np.nan)
    columns = {
        "pair": pa.array(np.arange(len(table))),
        "probe": pa.DictionaryArray.from_arrays(pa.array(table.probes), names),
        "reference": pa.DictionaryArray.from_arrays(pa.array(table.references), names),
        "probe_sha256": pa.DictionaryArray.from_arrays(pa.array(table.probes), photos),
        "reference_sha256": pa.DictionaryArray.from_arrays(pa.array(table.references), photos),
        "genuine": pa.array(table.genuine == 1, mask=table.genuine < 0),
        "score": pa.array(scores, mask=missing),
        "margin": pa.array(scores - decisions.threshold, mask=missing),
        "match": pa.array(decisions.matches, mask=missing),
        "log_likelihood_ratio": pa.array(llr, mask=missing | np.isnan(llr)),
        "error": pa.array(_pair_errors(table, reasons), pa.string()),
    }
    if table.people is not None:
        people = pa.array(map(_as_unicode, table.people), pa.string())
        for side, numbers in zip(SIDES, (table.probes, table.references), strict=True):
            columns[f"{side}_person"] = pa.DictionaryArray.from_arrays(pa.array(numbers), people)
    for name in [] if table.columns is None else table.columns.column_names:
        own = name
        while own in columns or own in KINDS:
            own = f"given_{own}"
        columns[own] = table.columns.column(name)
    return columns


def _as_unicode(name: str) -> str:
    """A name that Arrow can hold, with bytes that are no UTF-8 as Python escapes them."""
    return name.encode("utf-8", "backslashreplace").decode()


def _pair_errors(table: PairTable, reasons: Sequence[str | None]) -> list[str | None]:
    """What is wrong with the photos of each pair."""
    found: list[str | None] = [None] * len(table)
    bad = np.array([reason is not None for reason in reasons])
    for number in np.flatnonzero(bad[table.probes] | bad[table.references]):
        sides = {"probe": table.probes[number], "reference": table.references[number]}
        words = [
            f"{side} {_as_unicode(table.names[at])}: {reasons[at]}"
            for side, at in sides.items()
            if reasons[at] is not None
        ]
        found[number] = "; ".join(words)
    return found
