"""Old names of arguments keep working, and say what they are called now."""

from __future__ import annotations

import pytest

from xfr_plugin._moved import renamed_arguments


@renamed_arguments({"half": "split"}, values={"select": "dev"})
def judged(split: str = "all") -> str:
    return split


@pytest.mark.parametrize(("given", "expected"), [("select", "dev"), ("test", "test")])
def test_old_arguments_and_their_old_values_are_understood_with_a_warning(given: str, expected: str) -> None:
    with pytest.warns(DeprecationWarning, match="half is now split") as caught:
        assert judged(half=given) == expected  # type: ignore[call-arg]  # the old name, on purpose
    assert caught[0].filename == __file__


def test_new_arguments_do_not_warn() -> None:
    assert judged(split="dev") == "dev"
    assert judged() == "all"
