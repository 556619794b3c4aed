"""A card for a recognizer of one's own: thresholds and likelihood ratios, measured on labelled pairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin.base.files import shown, write_text
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.pairs import PairEntry, read_pair_list
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.recognition import Recognizer, calibrate
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.loading import MeasuredCard

__all__ = ["RATES", "LabelledScores", "measure_card", "score_pairs", "write_card"]

RATES: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""False match rates that thresholds are found for, as far as the pairs can show them."""

_AT_ONCE = 32


@dataclass(frozen=True)
class LabelledScores:
    """Scores of labelled pairs, and how many pairs could not be read."""

    genuine: NDArray[np.float64]
    impostor: NDArray[np.float64]
    missing: int


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
    return LabelledScores(scores[genuine], scores[~genuine], len(listed) - len(there))


def measure_card(
    recognizer: Recognizer,
    source: str,
    scores: LabelledScores,
    dataset: str,
    fmr: Sequence[float] = RATES,
    region_level: Callable[[Recognizer], float] | None = None,
) -> MeasuredCard:
    """Calibrate a recognizer on the scores of pairs.

    Args:
        recognizer: that gave them.
        source: what loads it.
        scores: of labelled pairs.
        dataset: what they are of, in words.
        fmr: rates that thresholds are wanted for; those that so few pairs cannot show are left out.
        region_level: measures the level w_r of the methods that leave regions out.

    Raises:
        InputError: too few scores.
    """
    shown_rates = [rate for rate in fmr if rate * scores.impostor.size >= 1]
    calibration = calibrate(scores.genuine, scores.impostor, dataset, shown_rates)
    if region_level is not None:
        calibration = calibration.model_copy(update={"region_level": region_level(recognizer)})
    return MeasuredCard(
        **recognizer.contract.model_dump(),
        name=recognizer.name,
        source=source,
        fingerprint=fingerprint(recognizer),
        calibration=calibration,
        gives=recognizer.gives,
    )


def write_card(card: MeasuredCard, path: Path) -> None:
    """Write a card; the path of a file in it becomes relative to the card.

    Raises:
        InputError: the card's name does not end with `.json`.
        OutputError: it cannot be written.
    """
    if path.suffix != ".json":
        raise InputError(f"a card is a .json file, not {shown(path)}")
    if os.path.isfile(card.source):
        card = card.model_copy(update={"source": os.path.relpath(card.source, path.parent)})
    write_text(path, card.model_dump_json(indent=1) + "\n")


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
