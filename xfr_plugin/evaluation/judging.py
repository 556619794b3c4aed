"""One call from faces, pairs, methods and protocols to results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch

from xfr_plugin.attr.registry import Method
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.evaluation.after import agreement, average_maps_judged
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES, ConfiguredMethod
from xfr_plugin.evaluation.choice import PairChoice
from xfr_plugin.evaluation.clock import Progress
from xfr_plugin.evaluation.engine import Run
from xfr_plugin.evaluation.manifest import (
    RunManifest,
    describe_recognizer,
    plain,
    read_manifest,
    versions,
    write_manifest,
)
from xfr_plugin.evaluation.natural.references import natural_references
from xfr_plugin.evaluation.pairs import PairEntry, PairList, read_pair_list
from xfr_plugin.evaluation.plan import PlantedPlan
from xfr_plugin.evaluation.protocol import Protocol, Setting
from xfr_plugin.evaluation.protocols import PROTOCOLS
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedEvidence
from xfr_plugin.evaluation.results import Results, collect
from xfr_plugin.evaluation.scenes import warn_of_scenes
from xfr_plugin.evaluation.store import MapCache, locked
from xfr_plugin.evaluation.work import Judging
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER
from xfr_plugin.explanation.comparison import MethodChoice, chosen_methods
from xfr_plugin.explanation.pipeline import RecognizerSource, open_recognizer
from xfr_plugin.explanation.verification import choose_threshold
from xfr_plugin.faces.folder import FaceFolder, RegionSource, Split
from xfr_plugin.recognition import Recognizer

__all__ = ["ProtocolChoice", "evaluate", "known_protocols"]

ProtocolChoice: TypeAlias = Sequence[str | Protocol] | Literal["all"]
"""Names of protocols, or protocols with settings of your own; or `all`."""

_MANIFEST = "manifest.json"


def known_protocols() -> dict[str, Callable[[], Protocol]]:
    """Protocol name → maker of the protocol with its default settings."""
    return {"planted": PlantedEvidence, **PROTOCOLS}


def evaluate(
    faces: str | os.PathLike[str],
    pairs: str | os.PathLike[str] | PairList,
    out: str | os.PathLike[str],
    *,
    methods: MethodChoice = None,
    protocols: ProtocolChoice = ("planted",),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    threshold: float | None = None,
    plan: PlantedPlan | None = None,
    limit: int | None = None,
    split: Split = "all",
    regions: RegionSource = "auto",
    photographs: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    chance: bool = True,
    keep_maps: bool = True,
    retry_failed: bool = False,
    only_report: bool = False,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Results:
    """Judge methods by protocols on pairs of aligned faces.

    Everything found is written into `out` at once; the same call goes on where a killed one stopped. Methods,
    protocols and pairs may be added to a run; anything else that would change its numbers is refused.

    Args:
        faces: folder of aligned faces, a folder for each person.
        pairs: a file, see `read_pair_list`, or a list of pairs or people.
        out: folder of the run.
        methods: see `compare`.
        protocols: see `ProtocolChoice`.
        options: options by name of the method, then by name of the option.
        recognizer: see `explain`.
        threshold: see `verify`.
        plan: which plantings are drawn where `pairs` brings none; `PlantedPlan` with this seed, if left out.
        limit: at most so many pairs, genuine and impostor by turns; and so many plantings, if `pairs` brings them,
            or single-region plantings a game, if they are drawn.
        split: see `Split`.
        regions: see `RegionSource`.
        photographs: folder of photographs as they were taken, of the same people, for the protocol of that name;
            `lfw250` beside LFW's faces, if left out.
        seed: of everything random.
        device: see `verify`.
        chance: judge the chance baselines too.
        keep_maps: keep maps on disk. Agreement and average maps need them, and so do protocols that are added later.
        retry_failed: try again what has failed.
        only_report: compute nothing, collect what is there.
        engine: `local`, processes on this machine, or `ray`, a cluster each machine of which can read `faces` and
            `photographs` under the same name; only this process writes.
        workers: how many, each with a copy of the model; this process alone, or with `ray` one for each CPU, if left
            out. With several processes, a script has its work under `if __name__ == "__main__"`. Numbers do not
            depend on them, but by rounding on the threads of each.
        progress: called after each step; `ProgressBar` shows it.

    Raises:
        InputError: an argument makes no sense, a face is missing, or `out` holds another run.
        UnknownNameError: a method, protocol, option or engine does not exist.
        ResultError: `out` cannot be used, or another run is at work in it.
        WeightsError: the recognizer's weights cannot be used.

    Warns:
        FaceWarning: the faces look like photographs, not like aligned crops.
    """
    if workers is None and engine == "local":
        workers = 1
    elif workers is not None:
        checked_at_least("workers", workers, 1)
    chosen = _methods(methods, options or {}, chance)
    judges = _protocols(protocols)
    if split not in get_args(Split):
        raise UnknownNameError.of("split", split, get_args(Split))
    listed = pairs if isinstance(pairs, PairList) else read_pair_list(Path(pairs))
    model = open_recognizer(recognizer, device)
    if methods is None:
        chosen = tuple(method for method in chosen if _fits(method, model))
    folder = FaceFolder(Path(faces), model.input_size, regions, _example(listed))
    photos = _photographs(photographs, folder)
    if photos is None and protocols != "all" and any(p.photographed for p in judges.values()):
        raise InputError("to draw on photographs as they were taken, name their folder (--photographs)")
    if plan is None:
        plan = PlantedPlan(seed=seed).model_copy(update={} if limit is None else {"count": limit})
    choice = PairChoice(listed, folder, photos, plan, limit, split, seed)
    entries = choice.of(judges.values())
    if not entries.all:
        raise InputError(
            "there is nothing to judge: the file names no pairs, or the split holds none of them"
        )
    setting = Setting(
        model,
        choose_threshold(model, threshold)[0],
        seed,
        faces=folder,
        people=choice.people,
        photographs=photos.folder if photos else None,
        cache=Path(out) / "truth",
    )
    if not only_report:
        warn_of_scenes(folder, (file for entry in entries.all for file in entry.files))
    manifest = RunManifest(
        versions=versions(),
        recognizer=describe_recognizer(model),
        threshold=setting.threshold,
        seed=seed,
        regions="mesh" if folder.meshes else "template",
        methods={method.name: plain({**method.options(), **_given(method)}) for method in chosen},
        protocols={name: plain(protocol.settings()) for name, protocol in judges.items()},
        **entries._asdict(),
        faces=folder.digests(file for entry in entries.all for file in entry.files)
        | {f"photographs/{file}": digest for file, digest in _digests(photos, entries.photographs).items()},
    )
    place = Path(out)
    if only_report:
        manifest.joined(read_manifest(place / _MANIFEST))
        return _collected(manifest, judges, chosen, folder, place, keep_maps)
    with locked(place):
        known = place / _MANIFEST
        write_manifest(manifest.joined(read_manifest(known)) if known.exists() else manifest, known)
        run = Run(Judging(setting, folder, chosen, judges), place, keep_maps, progress)
        if retry_failed:
            run.retry_failures()
        run.do(*entries, engine=engine, workers=workers)
    return _collected(manifest, judges, chosen, folder, place, keep_maps)


def _collected(
    manifest: RunManifest,
    judges: Mapping[str, Protocol],
    methods: Sequence[Method],
    folder: FaceFolder,
    place: Path,
    keep_maps: bool,
) -> Results:
    """What is recorded, and what follows from the maps of several methods or pairs."""
    names = [method.name for method in methods]
    pairs, plantings = manifest.pairs, manifest.plantings
    results = collect(place, manifest, judges, manifest.entries, names)
    genuine = {pair: bool(facts["genuine"]) for pair, facts in results.facts.items()}
    beside = natural_references(results.records, genuine)
    results = replace(results, records=(*results.records, *beside))
    if not keep_maps:
        return results
    maps = MapCache(place / "maps")
    real = [name for name in names if name not in CHANCE_BASELINES]
    known = [entry for entry in (pairs or plantings) if entry.name in results.facts]
    planted = [entry for entry in plantings if entry.name in results.facts]
    more = (*agreement(known, real, maps, folder), *average_maps_judged(planted, real, maps, folder))
    return replace(results, records=(*results.records, *more))


def _methods(
    choice: MethodChoice, options: Mapping[str, Mapping[str, Any]], chance: bool
) -> tuple[Method, ...]:
    chosen = chosen_methods(choice)
    for name in options:
        if name not in {method.name for method in chosen}:
            raise UnknownNameError.of(
                "method among the judged, with options,", name, [m.name for m in chosen]
            )
    given = tuple(
        ConfiguredMethod.of(method, dict(options[method.name])) if method.name in options else method
        for method in chosen
    )
    return (*given, *CHANCE_BASELINES.values()) if chance else given


def _fits(method: Method, model: Recognizer) -> bool:
    """Whether a method can be judged on a recognizer; chance baselines can on all."""
    return not isinstance(method, Method) or method.fits(model.gives)


def _given(method: Method) -> dict[str, Any]:
    return method.given if isinstance(method, ConfiguredMethod) else {}


def _protocols(choice: ProtocolChoice) -> dict[str, Protocol]:
    known = known_protocols()
    names = list(known) if choice == "all" else choice
    found: dict[str, Protocol] = {}
    for item in names:
        if isinstance(item, str) and item not in known:
            raise UnknownNameError.of("protocol", item, known)
        protocol = known[item]() if isinstance(item, str) else item
        found[protocol.name] = protocol
    if not found:
        raise InputError("name at least one protocol, or 'all'")
    return found


def _example(listed: PairList) -> str | None:
    """A file or folder by which the folder of faces is known."""
    files = [entry.probe for entry in listed.pairs[:1]] + [entry.probe for entry in listed.plantings[:1]]
    return next(iter((*files, *listed.people)), None)


def _photographs(given: str | os.PathLike[str] | None, faces: FaceFolder) -> FaceFolder | None:
    """The photographs that are given, or LFW's beside its aligned faces; None if there are none."""
    place = Path(given) if given is not None else faces.folder.parent / "lfw250"
    return FaceFolder(place, faces.size, "template") if given is not None or place.is_dir() else None


def _digests(photos: FaceFolder | None, entries: Sequence[PairEntry]) -> dict[str, str]:
    return photos.digests(entry.probe for entry in entries) if photos else {}
