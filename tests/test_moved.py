"""Old names of modules, of what is in them, and of arguments keep working, and say what they are called now."""

from __future__ import annotations

import importlib
import re
import sys
import warnings

import pytest

from xfr_plugin._moved import MODULES, NAMES, renamed_arguments, renamed_method


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


class Network:
    def encode(self, face: int) -> int:
        return face + 1

    look = renamed_method("look", "encode")


def test_old_methods_call_the_new_ones_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"^Network\.look is now Network\.encode$") as caught:
        assert Network().look(face=1) == 2
    assert caught[0].filename == __file__


@pytest.mark.parametrize("old", MODULES)
def test_old_modules_are_found_with_a_warning(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"xfr_plugin.{old}", raising=False)
    message = f"^{re.escape(f'xfr_plugin.{old} is now xfr_plugin.{MODULES[old]}')}$"
    with pytest.warns(DeprecationWarning, match=message):
        found = importlib.import_module(f"xfr_plugin.{old}")
    moved = importlib.import_module(f"xfr_plugin.{MODULES[old]}")
    for name in getattr(moved, "__all__", ["app"]):
        assert getattr(found, name) is getattr(moved, name)


@pytest.mark.parametrize(("module", "old"), [(module, old) for module in NAMES for old in NAMES[module]])
def test_old_names_are_found_with_a_warning(module: str, old: str) -> None:
    where, _, now = NAMES[module][old].partition(":")
    moved = getattr(
        importlib.import_module(f"xfr_plugin.{where}"), now
    )  # first: it must not hide the old name
    message = f"^{re.escape(f'xfr_plugin.{module}.{old} is now xfr_plugin.{where}.{now}')}$"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the module may have moved too, and says so once
        found = importlib.import_module(f"xfr_plugin.{module}")
    with pytest.warns(DeprecationWarning, match=message):
        assert getattr(found, old) is moved
