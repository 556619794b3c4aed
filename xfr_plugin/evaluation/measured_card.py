"""A card for a recognizer of one's own: thresholds and likelihood ratios, measured on labelled pairs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.intervention.level import measure_shares
from xfr_plugin.attr.registry import get_method
from xfr_plugin.base.files import shown, write_text
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.pairs import PairEntry, person_of, read_pair_list
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.recognition import Calibration, Recognizer, calibrate
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.loading import MeasuredCard
from xfr_plugin.recognition.metrics import logistic_map
from xfr_plugin.recognition.strength import LlrSupport, evidence_bounds

__all__ = [
    "RATES",
    "LabelledScores",
    "check_card_name",
    "measure_card",
    "measure_region_shares",
    "score_pairs",
    "write_card",
]

RATES: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""False match rates that thresholds are found for, as far as the pairs can show them."""

_AT_ONCE = 32
_DRAWS = 50


@dataclass(frozen=True)
class LabelledScores:
    """Scores of labelled pairs.

    Attributes:
        genuine, impostor: by kind of the pairs.
        missing: how many pairs could not be read.
        people: how many are in the pairs that could.
    """

    genuine: NDArray[np.float64]
    impostor: NDArray[np.float64]
    missing: int
    people: int


def score_pairs(recognizer: Recognizer, faces: Path, pairs: Path) -> LabelledScores:
    """Score the pairs of a list, each face embedded once.

    Args:
        recognizer: of any kind.
        faces: folder of aligned faces.
        pairs: see `evaluation.pairs.read_pair_list`.

    Raises:
        InputError: there are no pairs, or no faces of them.
    """
    listed = read_pair_list(pairs).pairs
    if not listed:
        raise InputError(f"{shown(pairs)} names no pairs: people alone cannot be calibrated on")
    folder = FaceFolder(faces, recognizer.input_size, "template", next((p.probe for p in listed), None))
    there = [pair for pair in listed if all(os.path.isfile(folder.folder / file) for file in pair.files)]
    scores = _scored(recognizer, folder, there)
    genuine = np.array([pair.genuine for pair in there], dtype=bool)
    people = {person_of(file) for pair in there for file in pair.files}
    return LabelledScores(scores[genuine], scores[~genuine], len(listed) - len(there), len(people))


def measure_card(
    recognizer: Recognizer,
    source: str,
    scores: LabelledScores,
    dataset: str,
    region_shares: Mapping[str, Mapping[str, float]] | None = None,
) -> MeasuredCard:
    """Calibrate a recognizer on the scores of pairs, at those of `RATES` that so many can show.

    Args:
        recognizer: that gave them.
        source: what loads it.
        scores: of labelled pairs.
        dataset: what they are of, in words.
        region_shares: see `measure_region_shares`.

    Raises:
        InputError: too few scores.
    """
    shown_rates = [rate for rate in RATES if rate * scores.impostor.size >= 1]
    calibration = calibrate(scores.genuine, scores.impostor, dataset, shown_rates)
    changes: dict[str, Any] = {"support": _support(scores, calibration)}
    if recognizer.gives == "scores":
        changes["histogram"] = None  # which is one of cosines
    calibration = calibration.model_copy(update=changes)
    return MeasuredCard(
        **recognizer.contract.model_dump(),
        name=recognizer.name,
        source=source,
        fingerprint=fingerprint(recognizer),
        calibration=calibration,
        region_shares={index: dict(shares) for index, shares in (region_shares or {}).items()},
        gives=recognizer.gives,
    )


def measure_region_shares(
    recognizer: Recognizer, faces: Path, pairs: Path, count: int, shapley: int = 0
) -> dict[str, dict[str, float]]:
    """What share of a genuine pair's score each region brings, from where evidence by removal starts; by method.

    Args:
        recognizer: of any kind.
        faces, pairs: see `score_pairs`.
        count: of genuine pairs, the first of the list, for `leave_one_out`: some 100 forward passes each.
        shapley: of the same for Shapley values: some 1,000 each.

    Raises:
        InputError: no genuine pairs, or no region brings anything.
    """
    genuine = [pair for pair in read_pair_list(pairs).pairs if pair.genuine]
    folder = FaceFolder(faces, recognizer.input_size, "template", next((p.probe for p in genuine), None))
    there = [pair for pair in genuine if all(os.path.isfile(folder.folder / file) for file in pair.files)]

    def images(file: str) -> torch.Tensor:
        return folder.pixels(file)[None].to(recognizer.device, recognizer.dtype) / 255

    measured = {}
    for name, wanted in (("leave_one_out", count), ("shapley", shapley)):
        if wanted:
            options: dict[str, Any] = {"players": "regions", "donors": 2} if name == "shapley" else {}
            attribution = get_method(name).build(recognizer, 0.0, level="none", **options)
            assert isinstance(attribution, RegionIntervention)
            faces_of = ((images(pair.probe), images(pair.reference)) for pair in there[:wanted])
            measured[attribution.shares_under] = measure_shares(attribution, faces_of)
    return measured


def write_card(card: MeasuredCard, path: Path) -> None:
    """Write a card; the path of a file in it becomes relative to the card.

    Raises:
        InputError: the card's name does not end with `.json`.
        OutputError: it cannot be written.
    """
    check_card_name(path)
    if os.path.isfile(card.source):
        card = card.model_copy(update={"source": os.path.relpath(card.source, path.parent)})
    write_text(path, card.model_dump_json(indent=1) + "\n")


def check_card_name(path: Path) -> None:
    """Refuse a card's name that does not end with `.json`."""
    if path.suffix != ".json":
        raise InputError(f"a card is a .json file, not {shown(path)}")


def _support(scores: LabelledScores, calibration: Calibration) -> LlrSupport | None:
    """How far the map can be believed, from these pairs alone; None without the package that bounds it."""
    if importlib.util.find_spec("lir") is None:
        return None
    kinds = (scores.genuine, scores.impostor)
    ratios = [calibration.llr_slope * kind + calibration.llr_intercept for kind in kinds]
    lower, upper = evidence_bounds(*ratios)
    rng = np.random.default_rng(0)
    maps = [
        logistic_map(rng.choice(kinds[0], kinds[0].size), rng.choice(kinds[1], kinds[1].size))
        for _ in range(_DRAWS)
    ]
    covariance = np.cov(np.array(maps).T)
    return LlrSupport(
        lower_bound=min(round(lower, 2), 0.0),
        upper_bound=max(round(upper, 2), 0.0),
        people=scores.people,
        pairs=(scores.genuine.size, scores.impostor.size),
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
    )


@torch.no_grad()
def _scored(recognizer: Recognizer, folder: FaceFolder, pairs: Sequence[PairEntry]) -> NDArray[np.float64]:
    """Scores of pairs; where there are embeddings, each face is embedded once."""
    fast = fast_recognizer(recognizer, passes=2 * len(pairs))
    known: dict[str, torch.Tensor] = {}
    scores = []
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        files = [file for pair in some for file in (pair.probe, pair.reference)]
        new = [file for file in dict.fromkeys(files) if file not in known]
        if new:
            images = torch.stack([folder.pixels(file) for file in new]).to(
                recognizer.device, recognizer.dtype
            )
            known |= dict(zip(new, fast.represent(images / 255), strict=True))
        sides = (torch.stack([known[file] for file in files[side::2]]) for side in (0, 1))
        scores.append(recognizer.compare(*sides).double().cpu())
        if recognizer.gives == "scores":
            known.clear()  # these are whole images
    return torch.cat(scores).numpy() if scores else np.empty(0)
