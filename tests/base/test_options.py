"""Options that make no sense are refused where they are given, and not where they are used."""

from __future__ import annotations

import numpy as np
import pytest

from xfr_plugin.attr import METHODS
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.base.text import digits_apart
from xfr_plugin.cli.options import read_options
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer, load_recognizer


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load_recognizer("xfr_compact128")


def test_whole_numbers_are_whole() -> None:
    assert checked_at_least("count", np.int64(3), 1) == 3
    assert checked_at_least("sigma", 0.5, 0.1) == 0.5
    assert checked_at_least("sigma", 1, 0.1) == 1
    for value in (2.5, 2.0, True, "2", None, float("nan")):
        with pytest.raises(InputError, match="count must be a whole number"):
            checked_at_least("count", value, 1)


def test_the_words_of_python_are_read_as_those_of_json() -> None:
    assert read_options(["a=True", "b=False", "c=None", "d=true", "e=yes", "f=[1, 2]"]) == {
        "a": True, "b": False, "c": None, "d": True, "e": "yes", "f": [1, 2],
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_is_true_or_false_is_no_text(name: str, recognizer: Recognizer) -> None:
    method = METHODS[name]
    switches = [option for option, default in method.options().items() if isinstance(default, bool)]
    for switch in switches:
        for value in ("no", 0, None):
            with pytest.raises(InputError, match=f"{switch} of {name} must be true or false"):
                method.build(recognizer, 0.3, **{switch: value})


def test_digits_tell_numbers_apart() -> None:
    assert digits_apart(0.5, 0.3, 2) == 2
    assert digits_apart(0.3, 0.3, 2) == 2
    assert digits_apart(0.2996, 0.3, 2) == 4
    assert digits_apart(0.3496, 0.3504, 3) == 4
    assert digits_apart(0.3494999, 0.3495001, 3) == 7
