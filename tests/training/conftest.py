"""Trainings without their pictures, which take longer than the few steps of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib.figure import Figure

from xfr_plugin.training import engine


@pytest.fixture(scope="module", autouse=True)
def _empty_curves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "curve_figure", lambda _: Figure(figsize=(1, 1)))
        yield
