"""How strongly a score speaks: a calibrated likelihood ratio, within the bounds of what its data can show.

A logistic map gives any likelihood ratio at all when it is followed far enough: two equal photographs have 10⁹ from a
million pairs of different people. So it is bounded by the empirical upper and lower bounds (ELUB) of Vergeer, van Es,
de Jongh, Alberink and Stoel, *Numerical likelihood ratios outputted by LR systems are often based on extrapolation*
(Science and Justice 56, 2016), as the package `lir` computes them, and comes with an interval.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from xfr_plugin.base.documents import Document
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import metrics

__all__ = ["LlrSupport", "ScoreHistogram", "Strength", "evidence_bounds", "llr_support", "score_histogram"]

_BINS = 100
_FINE = 2000
_AT_MOST = 100_000
_STEP = 0.02
_Z95 = 1.959964

Numbers = NDArray[np.int64]


class ScoreHistogram(Document):
    """How the scores of the calibration data lie, in bins of equal width from `low` to `high`.

    Attributes:
        low, high: of the score (cosine).
        genuine: share of the pairs of one person in each bin.
        impostor: share of the pairs of two people in each bin.
    """

    low: float = -1.0
    high: float = 1.0
    genuine: tuple[float, ...]
    impostor: tuple[float, ...]


class Strength(Document):
    """How strongly a score speaks for "same person" (> 0) or "different people" (< 0): log10 likelihood ratios.

    Attributes:
        log10_lr: the calibrated ratio, bounded.
        low: lower end of its 95 % interval (people drawn again), bounded likewise.
        high: upper end.
        lower_bound: least ratio that the data can show.
        upper_bound: greatest one.
        at_bound: the map itself went beyond a bound, so that the ratio is the most that the data can show.
        dataset: that it was calibrated on.
        people: how many were in it.
    """

    log10_lr: float
    low: float
    high: float
    lower_bound: float
    upper_bound: float
    at_bound: bool
    dataset: str
    people: int


class LlrSupport(Document):
    """How far a score → likelihood-ratio map can be believed.

    Attributes:
        lower_bound, upper_bound: ELUB, log10.
        people: in the calibration data; they were drawn again for the covariance.
        pairs: genuine and impostor pairs behind the bounds: one for each person, one for each two people.
        covariance: variance of the slope, covariance, variance of the intercept (natural logarithm).
    """

    lower_bound: float = Field(le=0)
    upper_bound: float = Field(ge=0)
    people: int = Field(gt=0)
    pairs: tuple[int, int]
    covariance: tuple[float, float, float]

    def strength(self, score: float, llr: float, dataset: str) -> Strength:
        """Bound the natural-log likelihood ratio of a score."""
        slope, both, intercept = self.covariance
        error = math.sqrt(max(score**2 * slope + 2 * score * both + intercept, 0.0))
        middle, low, high = ((llr + z * error) / math.log(10) for z in (0, -_Z95, _Z95))
        bounded = self._bounded(middle)
        return Strength(
            log10_lr=bounded,
            low=self._bounded(low),
            high=self._bounded(high),
            lower_bound=self.lower_bound,
            upper_bound=self.upper_bound,
            at_bound=bounded != middle,
            dataset=dataset,
            people=self.people,
        )

    def _bounded(self, value: float) -> float:
        return min(max(value, self.lower_bound), self.upper_bound)


def score_histogram(genuine: ArrayLike, impostor: ArrayLike) -> ScoreHistogram:
    """Shares of the scores in 100 bins from −1 to 1."""
    shares = []
    for scores in (genuine, impostor):
        counts, _ = np.histogram(np.clip(np.asarray(scores), -1, 1), bins=_BINS, range=(-1, 1))
        shares.append(tuple(float(f"{share:.4g}") for share in counts / counts.sum()))
    return ScoreHistogram(genuine=shares[0], impostor=shares[1])


def evidence_bounds(genuine_llr: ArrayLike, impostor_llr: ArrayLike) -> tuple[float, float]:
    """Empirical lower and upper bound (ELUB) of natural-log likelihood ratios; log10, ≤ 0 and ≥ 0.

    Raises:
        InputError: the package `lir` is not installed.
    """
    try:
        from lir.algorithms.bayeserror import elub
    except ImportError as error:
        raise InputError(
            "bounds are computed by the package lir: pip install 'xfr-plugin[calibrate]'"
        ) from error
    same, different = (
        metrics.check_scores(genuine_llr, "genuine"),
        metrics.check_scores(impostor_llr, "impostor"),
    )
    labels = np.concatenate((np.ones(same.size), np.zeros(different.size)))
    lower, upper = elub(np.concatenate((same, different)) / math.log(10), labels, step_size=_STEP)
    return float(lower), float(upper)


def llr_support(
    embeddings: ArrayLike,
    people: ArrayLike,
    slope: float,
    intercept: float,
    *,
    draws: int = 100,
    seed: int = 0,
) -> LlrSupport:
    """Bounds and uncertainty of the map of a recognizer.

    Pairs that share people are no independent ones. So bounds are taken from one pair for each person and one for
    each two people (100,000 at most), and the map is fitted again on people drawn with replacement.

    Args:
        embeddings: of unit length, N×D.
        people: number of the person of each, N.
        slope, intercept: of the map, see `Calibration`.
        draws: of people.
        seed: of everything random.

    Raises:
        InputError: the package `lir` is not installed, or there are too few people.
    """
    units = np.asarray(embeddings, dtype=np.float32)
    numbers = np.unique(np.asarray(people), return_inverse=True)[1].astype(np.int64)
    rng = np.random.default_rng(seed)
    genuine, impostor = _one_pair_each(units, numbers, rng)
    if genuine.size < 2 or impostor.size < 2:
        raise InputError("strength needs at least two people with two photographs each")
    lower, upper = evidence_bounds(slope * genuine + intercept, slope * impostor + intercept)
    maps = np.array(_maps_of_draws(units, numbers, draws, rng))
    covariance = np.cov(maps.T)
    return LlrSupport(
        lower_bound=round(lower, 2),
        upper_bound=round(upper, 2),
        people=int(numbers.max()) + 1,
        pairs=(int(genuine.size), int(impostor.size)),
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
    )


def _one_pair_each(
    units: NDArray[np.float32], people: Numbers, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of one pair for each person that has two photographs, and of one for each two people."""
    order = rng.permutation(len(people))
    _, first = np.unique(people[order], return_index=True)
    one = order[first]
    chosen = set(one.tolist())
    second = {int(people[i]): i for i in order if i not in chosen}
    same = [float(units[one[person]] @ units[other]) for person, other in second.items()]
    rows, columns = np.triu_indices(len(one), k=1)
    if rows.size > _AT_MOST:
        kept = rng.choice(rows.size, _AT_MOST, replace=False)
        rows, columns = rows[kept], columns[kept]
    different = np.einsum("nd,nd->n", units[one[rows]], units[one[columns]])
    return np.array(same), different.astype(np.float64)


def _maps_of_draws(
    units: NDArray[np.float32], people: Numbers, draws: int, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Slope and intercept on people drawn with replacement; scores in fine bins, pairs weighted by how often."""
    centres = (np.arange(_FINE) + 0.5) / _FINE * 2 - 1
    count = int(people.max()) + 1
    chances = np.full(count, 1 / count)
    times = rng.multinomial(count, chances, size=draws).astype(np.float64)[:, people]
    tables = np.zeros((2, draws, _FINE))
    for i in range(len(people) - 1):
        bins = np.clip(((units[i + 1 :] @ units[i] + 1) / 2 * _FINE).astype(np.int64), 0, _FINE - 1)
        same = people[i + 1 :] == people[i]
        for table, chosen in zip(tables, (same, ~same), strict=True):
            for row, drawn in zip(table, times, strict=True):
                if drawn[i]:
                    row += np.bincount(bins[chosen], drawn[i] * drawn[i + 1 :][chosen], minlength=_FINE)
    maps = []
    for genuine, impostor in zip(*tables, strict=True):
        some, others = genuine > 0, impostor > 0
        weights = (genuine[some], impostor[others])
        maps.append(metrics.logistic_map(centres[some], centres[others], weights))
    return maps
