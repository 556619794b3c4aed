"""The table of all judges: a method is as good as its worst judge says, and what stands beside is not ranked."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from xfr_plugin.evaluation.protocols import PROTOCOLS
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedEvidence
from xfr_plugin.evaluation.report.cells import Lookup
from xfr_plugin.evaluation.report.judges import JUDGES, judges_table, worst_shares
from xfr_plugin.evaluation.summary import SummaryRow

OCCLUDER, NATURAL, CONTROL = (
    next(judge for judge in JUDGES if judge.heading == name)
    for name in ("occluder", "natural, genuine", "control")
)


class Run:
    """As much of a run as the table looks at."""

    def __init__(self, values: Mapping[tuple[str, str], float]) -> None:
        where = {judge.heading: judge.where for judge in JUDGES}
        self.methods = list(dict.fromkeys(method for method, _ in values))
        self.rows = [
            SummaryRow(*where[judge], None, method, 9, value, value - 0.1, value + 0.1)
            for (method, judge), value in values.items()
        ]

    def summary(self) -> list[SummaryRow]:
        return self.rows


def test_every_judge_is_a_metric_that_its_protocol_ranks_by() -> None:
    known = {"planted": PlantedEvidence(), **{name: make() for name, make in PROTOCOLS.items()}}
    for judge in JUDGES:
        protocol, _, _, metric = judge.where
        assert known[protocol].higher_is_better[metric]


def test_a_method_is_placed_by_its_worst_judge() -> None:
    run = Run(
        {
            ("xssab", "occluder"): 0.9,
            ("xssab", "natural, genuine"): 0.1,
            ("fggb", "occluder"): 0.7,
            ("fggb", "natural, genuine"): 0.6,
            ("chance_centre", "occluder"): 0.99,
            ("ceiling", "natural, genuine"): 0.8,
        }
    )
    lookup = Lookup(run)  # type: ignore[arg-type]  # has what is looked at
    worst = worst_shares(lookup, (OCCLUDER, NATURAL), "xssab")
    assert worst is not None
    assert (worst.judge, worst.value) == ("natural, genuine", pytest.approx(0.125))  # .1 of .8
    _, _, table, notes = judges_table(run, lookup)  # type: ignore[arg-type]  # has what is looked at
    order = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert order == ["`fggb`", "`xssab`", "*Noise ceiling*", "*Chance: centre prior*"]
    assert "**0.900**" in table
    assert "**0.990**" not in table
    assert notes.count("\n") == 1


@pytest.mark.parametrize(("auc", "share"), [(0.5, 1.0), (0.75, 0.5), (0.25, 0.5)])
def test_controls_are_right_at_one_half(auc: float, share: float) -> None:
    lookup = Lookup(Run({("xssab", "control"): auc}))  # type: ignore[arg-type]  # has what is looked at
    worst = worst_shares(lookup, (CONTROL,), "xssab")
    assert worst is not None
    assert worst.value == pytest.approx(share)
    assert worst.low <= worst.value <= worst.high


def test_one_judge_alone_is_no_table() -> None:
    run = Run({("xssab", "occluder"): 0.9})
    assert judges_table(run, Lookup(run)) == []  # type: ignore[arg-type]  # has what is looked at
