"""Which of many pairs: words like `near threshold`, `false matches and top 3`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.errors import InputError
from xfr_plugin.explanation.quality import NEAR

__all__ = ["GRAMMAR", "Decisions", "selected"]

Mask = NDArray[np.bool_]

GRAMMAR = (
    "`all`, `none`, `near threshold` (within .03), `within X` of it, `matches`, `non-matches`, `errors`, "
    "`false matches`, `false non-matches`, `top N` (each probe's best), `random N`; several with `and`"
)
"""What can be asked for."""

_NUMBERED = re.compile(r"(?:(top|random) +([0-9]+)|(within) +([0-9]*\.?[0-9]+))")


@dataclass(frozen=True, eq=False)
class Decisions:
    """What is known of all pairs before any is explained; all arrays have an entry for each.

    Attributes:
        probes: number of the probe.
        scores: cosines, or scores of another scale; NaN where a face could not be had.
        threshold: at which is decided.
        genuine: 1, 0, or −1 where nobody said.
        unit: of the scores, see `Recognizer.score_unit`.
    """

    probes: NDArray[np.int64]
    scores: NDArray[np.float64]
    threshold: float
    genuine: NDArray[np.int8]
    unit: float = 1.0

    @property
    def matches(self) -> Mask:
        """Where the score reaches the threshold."""
        reached: Mask = self.scores >= self.threshold
        return reached


def selected(words: str, decisions: Decisions, seed: int = 0) -> NDArray[np.int64]:
    """Numbers of the pairs that words ask for, in their order; those that have no score are never among them.

    Args:
        words: see `GRAMMAR`. What is joined by `and` is narrowed from left to right.
        decisions: of all pairs.
        seed: of what is drawn at random.

    Raises:
        InputError: other words; errors are asked for, and it is not known which pairs are genuine.
    """
    kept = np.isfinite(decisions.scores)
    for term in re.split(r"\s+and\s+|\s*,\s*", words.strip()):
        kept = _narrowed(" ".join(term.lower().split()), decisions, kept, seed)
    return np.flatnonzero(kept)


def _narrowed(term: str, decisions: Decisions, kept: Mask, seed: int) -> Mask:
    plain = _plain(term, decisions)
    if plain is not None:
        return kept & plain
    numbered = _NUMBERED.fullmatch(term)
    if numbered is None:
        raise InputError(f"cannot select {term!r}: known are {GRAMMAR}")
    kind, count, _, distance = numbered.groups()
    if distance is not None:
        return kept & _within(decisions, float(distance))
    return _best(decisions, kept, int(count)) if kind == "top" else _drawn(kept, int(count), seed)


def _plain(term: str, decisions: Decisions) -> Mask | None:
    everything = np.ones(len(decisions.scores), dtype=np.bool_)
    if term in ("all", "none"):
        return everything if term == "all" else ~everything
    if term in ("near threshold", "near"):
        return _within(decisions, NEAR * decisions.unit)
    if term in ("matches", "non-matches"):
        return decisions.matches if term == "matches" else ~decisions.matches
    if term in ("errors", "false matches", "false non-matches"):
        return _errors(decisions, term)
    return None


def _errors(decisions: Decisions, term: str) -> Mask:
    if (decisions.genuine < 0).all():
        raise InputError(f"{term!r} cannot be told: the pairs need a column 'genuine', or --people")
    false_matches = decisions.matches & (decisions.genuine == 0)
    false_non_matches = ~decisions.matches & (decisions.genuine == 1)
    kinds: dict[str, Mask] = {
        "false matches": false_matches,
        "false non-matches": false_non_matches,
        "errors": false_matches | false_non_matches,
    }
    return kinds[term]


def _within(decisions: Decisions, distance: float) -> Mask:
    near: Mask = np.abs(decisions.scores - decisions.threshold) < distance
    return near


def _best(decisions: Decisions, kept: Mask, count: int) -> Mask:
    """Of what is kept, the `count` highest scores of each probe."""
    numbers = np.flatnonzero(kept)
    order = numbers[np.lexsort((numbers, -decisions.scores[numbers], decisions.probes[numbers]))]
    owners = decisions.probes[order]
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]) if len(owners) else np.empty(0, int)
    sizes = np.diff(np.r_[starts, len(owners)])
    ranks = np.arange(len(owners)) - np.repeat(starts, sizes)
    best = np.zeros_like(kept)
    best[order[ranks < count]] = True
    return best


def _drawn(kept: Mask, count: int, seed: int) -> Mask:
    numbers = np.flatnonzero(kept)
    drawn = np.zeros_like(kept)
    drawn[np.random.default_rng(seed).permutation(numbers)[:count]] = True
    return drawn
