"""The table of all judges: a method is as good as its worst judge says, and what stands beside is not ranked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from xfr_plugin.evaluation.protocols import PROTOCOLS
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedEvidence
from xfr_plugin.evaluation.report.aims import AIMS, aims_table
from xfr_plugin.evaluation.report.cells import Lookup, cell
from xfr_plugin.evaluation.report.judged import Judged, worst_share
from xfr_plugin.evaluation.report.judges import JUDGES
from xfr_plugin.evaluation.report.judges_figure import judges_figure
from xfr_plugin.evaluation.report.judges_page import judges_table
from xfr_plugin.evaluation.summary import SummaryRow, clustered_means, clustered_ratio, medians

OCCLUDER, NATURAL, CONTROL, DELETION = (
    next(judge for judge in JUDGES if judge.heading == name)
    for name in ("drawn over", "natural, genuine", "control", "deletion")
)
DOCS = Path(__file__).parents[2] / "docs"


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
        assert known[protocol].higher_is_better[metric] is not judge.falls


def judged(values: Mapping[tuple[str, str], float]) -> tuple[Run, Judged]:
    run = Run(values)
    return run, Judged(run.methods, Lookup(run))  # type: ignore[arg-type]  # has what is looked at


def test_a_method_is_placed_by_its_worst_judge() -> None:
    run, found = judged(
        {
            ("xssab", "drawn over"): 0.9,
            ("xssab", "natural, genuine"): 0.1,
            ("fggb", "drawn over"): 0.7,
            ("fggb", "natural, genuine"): 0.6,
            ("chance_centre", "drawn over"): 0.99,
            ("ceiling", "natural, genuine"): 0.8,
        }
    )
    worst = worst_share(found, (OCCLUDER, NATURAL), "xssab")
    assert worst is not None
    assert (worst.judge, worst.value) == ("natural, genuine", pytest.approx(0.125))  # .1 of .8
    blocks = judges_table(run, found.lookup)  # type: ignore[arg-type]  # has what is looked at
    tables = [block for block in blocks if block.startswith("| method")]
    order = [line.split("|")[1].strip() for line in tables[0].splitlines()[2:]]
    assert order == ["`fggb`", "`xssab`", "*Noise ceiling*", "*Chance: centre prior*"]
    assert "**0.900**" in tables[1]
    assert "**0.990**" not in tables[1]
    assert len(tables) == 3  # all, and each of two questions


@pytest.mark.parametrize(("auc", "share"), [(0.5, 1.0), (0.75, 0.5), (0.25, 0.5)])
def test_controls_are_right_at_one_half(auc: float, share: float) -> None:
    _, found = judged({("xssab", "control"): auc})
    worst = found.worst["xssab"]
    assert worst is not None
    assert worst.value == pytest.approx(share)
    assert worst.low <= worst.value <= worst.high


@pytest.mark.parametrize(("random", "share"), [(0.9, 0.25), (0.2, None)])
def test_removal_ranks_between_the_random_map_and_the_best(random: float, share: float | None) -> None:
    _, found = judged(
        {("xssab", "deletion"): 0.1, ("fggb", "deletion"): 0.7, ("chance_random", "deletion"): random}
    )
    shares = [found.share(DELETION, name) for name in ("xssab", "fggb")]
    if share is None:  # no method is apart from chance
        assert shares == [None, None]
    else:
        assert [each.value for each in shares if each] == pytest.approx([1, share])


def test_one_judge_alone_is_no_table() -> None:
    run, found = judged({("xssab", "drawn over"): 0.9})
    assert judges_table(run, found.lookup) == []  # type: ignore[arg-type]  # has what is looked at


def test_the_picture_shows_judges_that_rank_and_frames_the_worst() -> None:
    values = {
        ("xssab", "drawn over"): 0.9,
        ("xssab", "natural, genuine"): 0.1,
        ("xssab", "deletion"): 0.5,
        ("fggb", "drawn over"): 0.7,
        ("fggb", "natural, genuine"): 0.6,
        ("chance_random", "deletion"): 0.5,
    }
    run, _ = judged(values)
    figure = judges_figure(run)  # type: ignore[arg-type]  # has what is looked at
    assert figure is not None
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["drawn over", "natural, genuine"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["fggb", "xssab"]
    assert [patch.get_xy()[0] > 0.5 for patch in axes.patches] == [False, True]  # type: ignore[attr-defined]  # frames


def test_aims_say_what_is_reached_and_by_whom() -> None:
    aim = next(aim for aim in AIMS if aim.heading == "drawn over: AUC")
    values = {
        ("leave_one_out", "drawn over"): 0.8,
        ("leave_one_out", "natural, genuine"): 0.5,
        ("lrp", "drawn over"): 0.95,
        ("lrp", "natural, genuine"): 0.1,
        ("constant", "natural, genuine"): 0.2,
    }
    run, found = judged(values)
    run.share_of = lambda *_: None  # type: ignore[attr-defined]  # as without records
    title, _, table = aims_table(run, found.lookup)  # type: ignore[arg-type]  # has what is looked at
    assert title == "## Aims"
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in
            (line.split("|") for line in table.splitlines()[2:])}  # fmt: skip
    assert rows[aim.heading] == ["≥ 0.85", "0.80 (0.70–0.90), n = 9", "not known", "`lrp` 0.95"]
    assert rows["constant answer behind, intervals apart"][1:3] == ["1 of 1", "yes"]
    assert rows["published methods behind by every judge, intervals apart"][1:3] == ["1 of 2", "no"]


@pytest.mark.parametrize(
    ("mean", "low", "high", "verdict"),
    [
        (0.53, 0.1, 0.9, "yes"),
        (0.7, 0.4, 0.9, "not known"),
        (0.7, 0.6, 0.9, "no"),
        (0.3, 0.2, 0.46, "not known"),
    ],
)
def test_controls_are_near_one_half_or_it_is_not_known(
    mean: float, low: float, high: float, verdict: str
) -> None:
    aim = next(aim for aim in AIMS if aim.kind == "near")
    assert aim.verdict(SummaryRow(*aim.where, None, "lrp", 9, mean, low, high)) == verdict


def test_a_share_of_the_ceiling_is_of_the_same_pairs() -> None:
    values, wholes = {"a": 0.4, "b": 0.2, "c": 9.0}, {"a": 0.8, "b": 0.4, "d": 5.0}
    found = clustered_ratio(values, wholes, {name: name for name in "abcd"})
    assert found is not None
    assert found == (2, pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    assert clustered_ratio({"c": 1.0}, wholes, {"c": "c"}) is None


@pytest.mark.parametrize(("low", "is_asked"), [(0.1, True), (-0.05, False)])
def test_nothing_is_a_share_of_a_ceiling_that_may_be_nothing(low: float, is_asked: bool) -> None:
    aim = next(aim for aim in AIMS if aim.kind == "of ceiling")
    run, found = judged({("ceiling", "natural, genuine"): low + 0.1})
    found.lookup.rows = {(*aim.where, None, "ceiling"): run.rows[0]}
    run.share_of = lambda *_: run.rows[0]  # type: ignore[attr-defined]  # as of records
    row = aim.row(run, found.lookup, "lrp")  # type: ignore[arg-type]  # has what is looked at
    assert (row is not None) == is_asked


@pytest.mark.parametrize(("low", "is_ranked"), [(0.1, True), (-0.05, False), (-0.3, False)])
def test_a_ceiling_that_may_be_chance_ranks_nobody(low: float, is_ranked: bool) -> None:
    """-0.1 of the mean: a ceiling of exactly chance; below it, better methods would seem worse."""
    _, found = judged({("xssab", "natural, genuine"): 0.1, ("ceiling", "natural, genuine"): low + 0.1})
    share = found.share(NATURAL, "xssab")
    assert (share is not None) == is_ranked


def test_pairs_of_one_person_have_no_interval_and_nothing_is_said_by_it() -> None:
    groups = {
        ("", "", "auc", None, "lrp"): {"a": 0.4, "b": 0.5},
        ("", "", "auc", None, "ebp"): {"a": 0.4, "c": 0.5},
    }
    one, two = clustered_means("planted", groups, {"a": "Ann", "b": "Ann", "c": "Cid"})
    assert [row.has_interval for row in (one, two)] == [False, True]
    assert cell(one, None) == "0.450 (no interval)"
    assert [aim.verdict(one._replace(mean=aim.at)) for aim in AIMS[:1]] == ["not known"]
    alone = clustered_ratio({"a": 0.4}, {"a": 0.8}, {"a": "Ann"})
    assert alone is not None
    assert np.isnan(alone[2:]).all()
    assert not medians("cost", {("", "", "seconds", None, "lrp"): {"a": 1.0}})[0].has_interval


def test_no_interval_is_no_lead_and_has_no_numbers_on_the_page() -> None:
    run, _ = judged(
        {
            ("leave_one_out", "drawn over"): 0.9,
            ("lrp", "drawn over"): 0.1,
            ("leave_one_out", "natural, genuine"): 0.9,
            ("lrp", "natural, genuine"): 0.1,
        }
    )
    run.rows = [row._replace(low=np.nan, high=np.nan) for row in run.rows]
    run.share_of = lambda *_: None  # type: ignore[attr-defined]  # as without records
    lookup = Lookup(run)  # type: ignore[arg-type]  # has what is looked at
    page = "\n".join([*judges_table(run, lookup), *aims_table(run, lookup)])  # type: ignore[arg-type]  # as above
    assert "nan" not in page
    assert "published methods" not in page
    assert judges_figure(run) is not None  # type: ignore[arg-type]  # has what is looked at


@pytest.mark.parametrize("page", sorted(DOCS.glob("judged/*/judges.md")), ids=lambda page: page.parent.name)
def test_the_page_of_results_shows_what_the_runs_said(page: Path) -> None:
    shown = (DOCS / "results.md").read_text(encoding="utf-8")
    blocks = page.read_text(encoding="utf-8").split("\n\n")
    assert next(block for block in blocks if block.startswith("| method")) in shown
    assert f"({page.relative_to(DOCS).as_posix()})" in shown


def test_the_page_of_results_says_what_each_judge_asks() -> None:
    shown = (DOCS / "results.md").read_text(encoding="utf-8")
    assert [judge.heading for judge in JUDGES if f"- **{judge.heading}**: {judge.asks}" not in shown] == []
