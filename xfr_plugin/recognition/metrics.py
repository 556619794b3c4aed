"""Error rates of a verification system, from its genuine and impostor scores.

Terms follow ISO/IEC 19795-1: FMR is the share of impostor pairs that match, FNMR the share of genuine pairs
that do not. A pair matches if its score is at or above the threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xfr_plugin.errors import InputError

__all__ = [
    "FoldAccuracy",
    "best_threshold",
    "check_scores",
    "cllr",
    "equal_error_rate",
    "error_rates",
    "kfold_accuracy",
    "logistic_map",
    "threshold_at_fmr",
]

Scores = NDArray[np.float64]


class FoldAccuracy(NamedTuple):
    """Accuracy over folds: mean and standard deviation (0…1), and the mean threshold."""

    mean: float
    std: float
    threshold: float


def check_scores(scores: ArrayLike, kind: str) -> Scores:
    """Return scores as a one-dimensional float64 array.

    Raises:
        InputError: no scores, not one-dimensional, or NaN among them.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{kind} scores must be a non-empty list of numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{kind} scores hold NaN or infinite values")
    return array


def error_rates(genuine: ArrayLike, impostor: ArrayLike, threshold: float) -> tuple[float, float]:
    """FMR and FNMR (each 0…1) at a threshold."""
    fmr = float(np.mean(check_scores(impostor, "impostor") >= threshold))
    fnmr = float(np.mean(check_scores(genuine, "genuine") < threshold))
    return fmr, fnmr


def threshold_at_fmr(impostor: ArrayLike, fmr: float) -> float:
    """Lowest threshold at which at most a share `fmr` (0…1) of the impostor scores match.

    Raises:
        InputError: there are fewer than 1/`fmr` impostor scores, so the rate cannot be observed.
    """
    scores = check_scores(impostor, "impostor")
    allowed = int(np.floor(fmr * scores.size + 1e-9))
    if not 0 < fmr < 1 or allowed < 1:
        raise InputError(f"an FMR of {fmr:g} cannot be observed on {scores.size} impostor pairs")
    highest_refused = np.partition(scores, scores.size - allowed - 1)[scores.size - allowed - 1]
    return float(np.nextafter(highest_refused, np.inf))


def equal_error_rate(genuine: ArrayLike, impostor: ArrayLike) -> tuple[float, float]:
    """Equal error rate (0…1) and its threshold: where FMR and FNMR cross, interpolated on the ROC."""
    from sklearn.metrics import roc_curve  # takes seconds to import, and only calibration needs it

    scores, same = _join(genuine, impostor)
    fmr, tmr, thresholds = roc_curve(same, scores, drop_intermediate=False)
    difference = (1 - tmr) - fmr
    after = int(np.argmax(difference <= 0))
    before = max(after - 1, 0)
    span = difference[before] - difference[after]
    weight = difference[before] / span if span > 0 else 0.0
    rate = fmr[before] + weight * (fmr[after] - fmr[before])
    low, high = thresholds[after], thresholds[before]
    threshold = low if not np.isfinite(high) else high + weight * (low - high)
    return float(rate), float(threshold)


def best_threshold(scores: ArrayLike, same: ArrayLike) -> float:
    """Threshold of the highest accuracy; midway between the two scores that it separates."""
    values = check_scores(scores, "pair")
    labels = np.asarray(same, dtype=bool)
    order = np.argsort(values, kind="stable")
    sorted_scores, sorted_same = values[order], labels[order]
    # cut i refuses the i lowest scores
    correct = np.concatenate(([0], np.cumsum(~sorted_same))) + np.concatenate(
        (np.cumsum(sorted_same[::-1])[::-1], [0])
    )
    edges = np.concatenate(([sorted_scores[0] - 1e-6], sorted_scores, [sorted_scores[-1] + 1e-6]))
    cuts = (edges[:-1] + edges[1:]) / 2
    separates = np.concatenate(([True], np.diff(sorted_scores) > 0, [True]))
    return float(cuts[np.argmax(np.where(separates, correct, -1))])


def kfold_accuracy(scores: ArrayLike, same: ArrayLike, folds: ArrayLike) -> FoldAccuracy:
    """LFW's protocol: each fold is judged at the threshold that is best on all the others.

    Args:
        scores: similarity of each pair.
        same: whether each pair is genuine.
        folds: fold number of each pair.
    """
    values, labels, fold = check_scores(scores, "pair"), np.asarray(same, dtype=bool), np.asarray(folds)
    accuracies, thresholds = [], []
    for number in np.unique(fold):
        held_out = fold == number
        threshold = best_threshold(values[~held_out], labels[~held_out])
        accuracies.append(np.mean((values[held_out] >= threshold) == labels[held_out]))
        thresholds.append(threshold)
    return FoldAccuracy(float(np.mean(accuracies)), float(np.std(accuracies)), float(np.mean(thresholds)))


def cllr(genuine_llr: ArrayLike, impostor_llr: ArrayLike) -> float:
    """Log-likelihood-ratio cost in bits (Brümmer and du Preez, 2006): 0 is perfect, 1 says nothing.

    Args:
        genuine_llr: natural-log likelihood ratios of genuine pairs.
        impostor_llr: those of impostor pairs.
    """
    genuine = np.logaddexp(0, -check_scores(genuine_llr, "genuine")).mean()
    impostor = np.logaddexp(0, check_scores(impostor_llr, "impostor")).mean()
    return float((genuine + impostor) / (2 * np.log(2)))


def logistic_map(
    genuine: ArrayLike, impostor: ArrayLike, weights: tuple[ArrayLike, ArrayLike] | None = None
) -> tuple[float, float]:
    """Slope and intercept of the natural-log likelihood ratio over the score, both classes weighted equally.

    Args:
        genuine: scores of pairs of the same person.
        impostor: scores of pairs of different people.
        weights: of both, ≥ 0, e.g. how many pairs there are of each score; 1 each, if left out.
    """
    from sklearn.linear_model import (
        LogisticRegression,
    )  # takes seconds to import, and only calibration needs it

    scores, same = _join(genuine, impostor)
    given = None if weights is None else np.concatenate([np.asarray(w, dtype=float) for w in weights])
    if given is not None:  # equal weight of both classes, at the mean that plain counts would have
        for label in (True, False):
            given[same == label] *= scores.size / (2 * given[same == label].sum())
    # balanced weights make the fitted log-odds a log-likelihood ratio; the penalty only guards separable data
    model = LogisticRegression(C=1e4, class_weight=None if given is not None else "balanced")
    model.fit(scores[:, None], same.astype(float), sample_weight=given)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _join(genuine: ArrayLike, impostor: ArrayLike) -> tuple[Scores, NDArray[np.bool_]]:
    positive, negative = check_scores(genuine, "genuine"), check_scores(impostor, "impostor")
    same = np.concatenate((np.ones(positive.size, dtype=bool), np.zeros(negative.size, dtype=bool)))
    return np.concatenate((positive, negative)), same
