"""The examples in the docstrings of attribution classes run, and say what is true."""

from __future__ import annotations

import pytest
from helpers.examples import run_example

from xfr_plugin.attr import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_example(name: str) -> None:
    run_example(METHODS[name])
