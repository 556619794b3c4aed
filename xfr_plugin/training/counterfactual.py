"""Fitting the model of counterfactual evidence on plantings among training people.

Examples are collected recognizer by recognizer, the slow part, and kept in files; one model is fitted on all of them,
so that it serves recognizers that it has never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin.attr.counterfactual.attribution import Counterfactual
from xfr_plugin.attr.counterfactual.model import (
    READINGS,
    CounterfactualModel,
    Form,
    Hypothesis,
    HypothesisModel,
)
from xfr_plugin.attr.counterfactual.readings import PAIR_READINGS
from xfr_plugin.base.files import atomic_path, write_text
from xfr_plugin.errors import InputError
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.regions import RegionsOf
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.planted_pairs import build_pairs
from xfr_plugin.swaps.planting import Planting, plan_plantings
from xfr_plugin.swaps.regions import REGIONS
from xfr_plugin.training.faces_data import find_faces

__all__ = [
    "Examples",
    "collect_examples",
    "fit_model",
    "read_examples",
    "save_examples",
    "train_counterfactual",
    "with_regions",
]

LEAST_EFFECT = 0.05
"""Plantings that move the score by less teach nothing of where they are, and are left out."""

_L2, _OWN = 0.01, 8.0
_PHOTOS = 12
_FIELDS = ("readings", "present", "region", "similar", "effect")
_HYPOTHESES: tuple[Hypothesis, ...] = ("dissimilar", "similar")


@dataclass(frozen=True)
class Examples:
    """Readings of planted and of untouched pairs.

    Attributes:
        readings: `PAIR_READINGS` of the probe, N×R×F.
        present: N×R, whether the probe shows the region.
        region: index of the planted region; −1 where nothing was planted.
        similar: N, whether the pair belongs to the hypothesis `similar`.
        effect: N, by how much the planting moved the score, ≥ 0.
    """

    readings: NDArray[np.float64]
    present: NDArray[np.bool_]
    region: NDArray[np.intp]
    similar: NDArray[np.bool_]
    effect: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.region)

    def only(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Examples:
        """Some of the examples."""
        return Examples(*(getattr(self, name)[keep] for name in _FIELDS))

    @staticmethod
    def joined(examples: Sequence[Examples]) -> Examples:
        """All of several."""
        return Examples(*(np.concatenate([getattr(some, name) for some in examples]) for name in _FIELDS))


def save_examples(examples: Examples, path: Path) -> None:
    """Write examples as `.npz`, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: getattr(examples, name) for name in _FIELDS})


def read_examples(path: Path) -> Examples:
    """Read examples that `save_examples` wrote.

    Raises:
        InputError: the file is not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            examples = Examples(*(stored[name] for name in _FIELDS))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} holds no examples of counterfactual evidence: {error}") from error
    if examples.readings.ndim != 3 or examples.readings.shape[1:] != (len(REGIONS), len(PAIR_READINGS)):
        raise InputError(f"{path} holds readings of another version: delete it, and collect anew")
    return examples


def train_counterfactual(
    recognizer: Recognizer,
    faces: Path,
    run: Path,
    *,
    count: int = 220,
    seed: int = 0,
    people: Path | None = None,
    publish: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CounterfactualModel:
    """Collect the examples of a recognizer, unless they lie in the run's folder, and fit on all that lie there.

    Args:
        recognizer: whose scores are read.
        faces: folder of aligned faces of training people, see `find_faces`.
        run: folder of the examples, a file for each recognizer.
        count: see `collect_examples`.
        seed: see `collect_examples`.
        people: LFW people file, see `find_faces`.
        publish: file to write the model to (.json).
        progress: see `collect_examples`.

    Raises:
        InputError: no faces, too few people, or a file of examples that cannot be read.
    """
    kept = run / f"{recognizer.name}.npz"
    if not kept.is_file():
        folder = FaceFolder(faces, recognizer.input_size)
        photos = with_regions(find_faces(folder.folder, people), folder.regions)
        found = collect_examples(
            recognizer, folder.folder, photos, folder.regions, count=count, seed=seed, progress=progress
        )
        save_examples(found, kept)
    files = sorted(run.glob("*.npz"))
    collected = {file.stem: read_examples(file) for file in files}
    training = {f"pairs of {name}": len(some) for name, some in collected.items()}
    model = fit_model(Examples.joined(list(collected.values())), training)
    if publish is not None:
        write_text(publish, model.model_dump_json(indent=1) + "\n")
    return model


def collect_examples(
    recognizer: Recognizer,
    faces: Path,
    people: Mapping[str, Sequence[str]],
    regions_of: RegionsOf,
    *,
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Examples:
    """Plant, and read what the interventions of `attr.Counterfactual` do.

    Args:
        recognizer: whose scores are read.
        faces: folder of aligned faces.
        people: files of training people.
        regions_of: regions of each face, for planting.
        count: plantings of each hypothesis that move the score enough; half as many pairs of each stay untouched.
        seed: of the draw.
        progress: called with the number of pairs read, and of all.

    Raises:
        InputError: too few people with several photos, or plantings that move the score.
    """
    attribution = Counterfactual(recognizer)
    chosen: list[tuple[Planting, bool, float]] = []
    for hypothesis in _HYPOTHESES:
        planted, clean = _plan(recognizer, faces, people, regions_of, hypothesis, count, seed)
        chosen += [(planting, True, effect) for planting, effect in planted]
        chosen += [(planting, False, 0.0) for planting in clean]
    read = []
    for number, (planting, is_planted, effect) in enumerate(chosen, start=1):
        read.append(_read(attribution, recognizer, faces, planting, is_planted, effect, regions_of))
        if progress is not None:
            progress(number, len(chosen))
    return Examples.joined(read)


def fit_model(
    examples: Examples, training: Mapping[str, str | int | float] | None = None
) -> CounterfactualModel:
    """Fit both hypotheses, for both forms; the same examples give the same model.

    Raises:
        InputError: a region was never planted, or a hypothesis has no untouched pairs.
    """
    hypotheses: dict[Form, dict[Hypothesis, HypothesisModel]] = {}
    for form in READINGS:
        hypotheses[form] = {}
        for hypothesis in _HYPOTHESES:
            own = examples.only(examples.similar == (hypothesis == "similar"))
            missing = set(range(len(REGIONS))) - set(own.region.tolist())
            if missing or -1 not in own.region:
                what = ", ".join(REGIONS[index] for index in sorted(missing)) or "none of the regions"
                raise InputError(f"no example of {hypothesis!r} with {what} planted: collect more")
            hypotheses[form][hypothesis] = _fit_hypothesis(own, form)
    return CounterfactualModel(hypotheses=hypotheses, training=dict(training or {}))


def with_regions(people: Mapping[str, Sequence[str]], regions_of: RegionsOf) -> dict[str, list[str]]:
    """A dozen photos of each person at most, of which the named regions are known."""
    kept: dict[str, list[str]] = {}
    for name, files in people.items():
        for file in files:
            with suppress(InputError):
                regions_of(file)
                kept.setdefault(name, []).append(file)
            if len(kept.get(name, ())) == _PHOTOS:
                break
    return kept


def _plan(
    recognizer: Recognizer,
    faces: Path,
    people: Mapping[str, Sequence[str]],
    regions_of: RegionsOf,
    hypothesis: Hypothesis,
    count: int,
    seed: int,
) -> tuple[list[tuple[Planting, float]], list[Planting]]:
    """Plantings that move the score, the regions in equal numbers as far as they do; and untouched pairs."""
    planned = plan_plantings(
        people,
        4 * count,
        seed=seed,
        games=(hypothesis,),
        regions=REGIONS,
        regions_of=regions_of,
        matched=True,
    )
    pairs = build_pairs(recognizer, faces, planned, regions_of)
    effects = np.abs(pairs.planted - pairs.clean)
    moved = [(p, float(e)) for p, e in zip(planned, effects, strict=True) if e > LEAST_EFFECT]
    if len(moved) < count:
        raise InputError(
            f"only {len(moved)} of {len(planned)} plantings move the score: plan more, or use more people"
        )
    rest = [p for p, e in zip(planned, effects, strict=True) if e <= LEAST_EFFECT]
    return moved[:count], (rest + planned)[: count // 2]


def _read(
    attribution: Counterfactual,
    recognizer: Recognizer,
    faces: Path,
    planting: Planting,
    is_planted: bool,
    effect: float,
    regions_of: RegionsOf,
) -> Examples:
    shown = planting if is_planted else planting.model_copy(update={"strength": 1e-6})
    pair = build_pairs(recognizer, faces, [shown], regions_of)
    probe, reference = (x.float() / 255 for x in (pair.probes, pair.references))
    readings, present = attribution.readings((probe.to(recognizer.device), reference.to(recognizer.device)))
    return Examples(
        readings.double().cpu().numpy()[None],
        present[None],
        np.array([REGIONS.index(planting.region) if is_planted else -1]),
        np.array([planting.game == "similar"]),
        np.array([effect]),
    )


def _fit_hypothesis(examples: Examples, form: Form) -> HypothesisModel:
    columns = [PAIR_READINGS.index(name) for name in READINGS[form]]
    values, region = examples.readings[:, :, columns], examples.region
    others = examples.present & (np.arange(len(REGIONS)) != region[:, None])
    mean = np.stack([values[others[:, r], r].mean(axis=0) for r in range(len(REGIONS))])
    spread = np.stack([values[others[:, r], r].std(axis=0) for r in range(len(REGIONS))])
    effect = np.mean([examples.effect[region == r].mean() for r in range(len(REGIONS))])
    weights, bias, none = _fit_logits((values - mean) / spread, examples.present, region)
    return HypothesisModel(
        mean=_rows(mean),
        spread=_rows(spread),
        weights=_rows(weights),
        bias=_row(bias),
        none=none,
        effect=round(float(effect), 6),
    )


def _fit_logits(
    values: NDArray[np.float64], present: NDArray[np.bool_], region: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Penalised maximum likelihood of weights R×F, biases R and the constant of "none".

    A region's weights are common ones and its own departures from them, which are penalised more.
    """
    from scipy.optimize import minimize  # slow to import

    regions, features = values.shape[1:]
    x, there = torch.from_numpy(values), torch.from_numpy(present)
    label = torch.from_numpy(np.where(region < 0, regions, region))
    sizes = (features, regions * features, regions, 1)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = torch.from_numpy(flat).requires_grad_()
        common, own, bias, none = theta.split(sizes)
        logits = (x * (common + own.view(regions, features))).sum(dim=2) + bias
        logits = torch.cat((logits.masked_fill(~there, -1e9), none.expand(len(x), 1)), dim=1)
        penalty = common.square().sum() + _OWN * own.square().sum() + bias.square().sum()
        value = torch.nn.functional.cross_entropy(logits, label) + _L2 * penalty
        return value.item(), torch.autograd.grad(value, theta)[0].numpy()

    best = minimize(loss, np.zeros(sum(sizes)), jac=True, method="L-BFGS-B").x
    common, own, bias, none = np.split(best, np.cumsum(sizes[:-1]))
    return common + own.reshape(regions, features), bias, float(none[0])


def _row(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def _rows(values: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(_row(row) for row in values)
