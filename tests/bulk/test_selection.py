"""Words for pairs: each means what it says, and no pair without a score is ever chosen."""

from __future__ import annotations

import numpy as np
import pytest

from xfr_plugin.bulk import selected
from xfr_plugin.bulk.selection import Decisions
from xfr_plugin.errors import InputError

SCORES = np.array([0.9, 0.31, np.nan, 0.1, 0.28, 0.5])
GENUINE = np.array([1, 0, 1, 1, 0, -1], dtype=np.int8)
DECISIONS = Decisions(np.array([0, 0, 0, 1, 1, 1]), SCORES, 0.3, GENUINE)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("all", [0, 1, 3, 4, 5]),
        ("none", []),
        ("near threshold", [1, 4]),
        ("within 0.25", [1, 3, 4, 5]),
        ("matches", [0, 1, 5]),
        ("non-matches", [3, 4]),
        ("errors", [1, 3]),
        ("false matches", [1]),
        ("false non-matches", [3]),
        ("top 1", [0, 5]),
        ("Top  2 and matches", [0, 1, 5]),
        ("non-matches and top 1", [4]),
    ],
)
def test_what_words_choose(words: str, expected: list[int]) -> None:
    assert selected(words, DECISIONS).tolist() == expected


def test_near_is_near_on_the_scale_of_the_scores() -> None:
    percent = Decisions(DECISIONS.probes, 100 * SCORES, 30, GENUINE, unit=100)
    assert selected("near threshold", percent).tolist() == [1, 4]
    assert selected("within 1.5", percent).tolist() == [1]


def test_chance_is_seeded_and_draws_of_what_is_left() -> None:
    drawn = selected("matches and random 2", DECISIONS)
    assert len(drawn) == 2
    assert set(drawn) <= {0, 1, 5}
    assert np.array_equal(drawn, selected("matches and random 2", DECISIONS))


@pytest.mark.parametrize(
    "words", ["top 1.5", "random .5", "within", "top -1", "within -0.1", "", "all and", "1"]
)
def test_numbers_that_make_no_sense_are_errors(words: str) -> None:
    with pytest.raises(InputError, match="cannot select"):
        selected(words, DECISIONS)


def test_other_words_are_errors() -> None:
    with pytest.raises(InputError, match="cannot select 'nearby': known are"):
        selected("nearby", DECISIONS)
    unknown = Decisions(DECISIONS.probes, SCORES, 0.3, np.full(6, -1, np.int8))
    with pytest.raises(InputError, match="'errors' cannot be told"):
        selected("errors", unknown)
