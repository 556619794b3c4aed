"""No method is taught by what judges it: training code reaches nothing that draws or plants for a judge."""

from __future__ import annotations

import grimp
import pytest

DRAWS = tuple(f"xfr_plugin.swaps.{name}" for name in ("planting", "blending", "seamless", "whole"))
"""What plants for a judge, and blends what it plants; occluders and all else are in `evaluation`."""

EXCEPTIONS = {
    "training.outlines": "outlines are taught on faces with a region of another, blended as plantings are",
}
"""Training code that breaks the rule, and why it is still there. It may become less, and not more."""


def reached() -> dict[str, tuple[str, ...]]:
    """Training modules → the shortest way by which each comes to what draws for a judge."""
    graph = grimp.build_graph("xfr_plugin")
    ways: dict[str, tuple[str, ...]] = {}
    for module in sorted({"xfr_plugin.training"} | graph.find_descendants("xfr_plugin.training")):
        for drawn in (*DRAWS, "xfr_plugin.evaluation", *graph.find_descendants("xfr_plugin.evaluation")):
            way = graph.find_shortest_chain(module, drawn)
            if way is not None:
                ways.setdefault(module.removeprefix("xfr_plugin."), way)
    return ways


@pytest.fixture(scope="module")
def ways() -> dict[str, tuple[str, ...]]:
    return reached()


def test_training_code_draws_nothing_for_a_judge(ways: dict[str, tuple[str, ...]]) -> None:
    through = {
        name: way
        for name, way in ways.items()
        if not {f"xfr_plugin.{known}" for known in EXCEPTIONS} & set(way)
    }
    assert not through, "a judge would rank what it has taught"


def test_exceptions_are_still_needed(ways: dict[str, tuple[str, ...]]) -> None:
    assert set(EXCEPTIONS) <= set(ways), "take the exceptions away that are none any more"
