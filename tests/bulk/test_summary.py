"""What many explanations say together: shares as they are defined, groups as they were named, a page to look at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.bulk_faces import explain_all, write_list

from xfr_plugin import BatchResults
from xfr_plugin.bulk import RegionRow, Summary, summarise
from xfr_plugin.bulk.page import region_figure
from xfr_plugin.bulk.summary import _groups, _intervals, _people
from xfr_plugin.bulk.words import decided_in_words, explained_in_words, region_in_words
from xfr_plugin.errors import InputError, UnknownNameError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> BatchResults:
    folder = tmp_path_factory.mktemp("run")
    write_list(folder)
    return explain_all(folder, folder / "run", methods=["xssab"], check=True)


@pytest.fixture(scope="module")
def summary(run: BatchResults) -> Summary:
    return summarise(run.folder, group="camera", count=2)


def rows_of(summary: Summary, by: str, group: str) -> dict[str, RegionRow]:
    return {row.region: row for row in summary.regions if (row.by, row.group) == (by, group)}


def test_shares_are_means_of_those_of_single_pairs(run: BatchResults, summary: Summary) -> None:
    shares = []
    for pair in range(run.manifest.pairs):
        explanation = run.explanation(pair, "xssab")
        sides = (explanation.probe, explanation.reference)
        weights = [sum(r.similar + r.dissimilar for r in side.regions) for side in sides]
        both = [100 * np.array([region.evidence for region in side.regions]) for side in sides]
        shares.append(sum(both) / sum(weights))
    names = [region.region for region in run.explanation(0, "xssab").probe.regions]
    rows = rows_of(summary, "all", "all")
    assert list(rows) == names
    np.testing.assert_allclose(
        [rows[name].share for name in names], np.mean(shares, axis=0), rtol=1e-6, atol=1e-9
    )
    for row in rows.values():
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.share <= row.high


def test_groups_divide_the_pairs(run: BatchResults, summary: Summary) -> None:
    sizes: dict[str, dict[str, int]] = {}
    for row in summary.regions:
        sizes.setdefault(row.by, {})[row.group] = row.pairs
    assert set(sizes) == {"all", "decision", "error", "camera"}
    assert {sum(groups.values()) for groups in sizes.values()} == {run.manifest.pairs}
    assert set(sizes["camera"]) == {"even", "odd"}
    match = run.pairs(["match"]).column("match").to_pylist()
    assert sizes["decision"]["match"] == sum(match)


def test_too_few_people_have_no_interval(summary: Summary) -> None:
    few = [row for row in summary.regions if row.pairs < 3]  # of four people at most
    assert few
    assert all(row.low is None and row.high is None for row in few)


def test_photos_are_one_persons_as_far_as_genuine_pairs_tell(run: BatchResults) -> None:
    people = _people(run.pairs())
    rows = run.pairs(["probe", "reference"]).to_pylist()
    owners = {}
    for row, pair in zip(rows, people.tolist(), strict=True):
        for name, person in zip(row.values(), pair, strict=True):
            assert owners.setdefault(name.partition("/")[0], person) == person
    assert len(set(owners.values())) == len(owners) == 8
    table = pa.table({f"{side}_sha256": ["a", "b"] for side in ("probe", "reference")})
    assert _people(table.append_column("genuine", pa.nulls(2, pa.bool_()))).tolist() == [[0, 0], [1, 1]]


def test_who_is_who_is_known_by_name_where_there_are_names() -> None:
    photos = {f"{side}_sha256": [f"{side}{i}" for i in range(3)] for side in ("probe", "reference")}
    names = {"probe_person": ["ann", "bob", "ann"], "reference_person": ["bob", "cyd", "ann"]}
    table = pa.table(photos | names | {"genuine": pa.nulls(3, pa.bool_())})
    assert _people(table).tolist() == [[0, 1], [1, 2], [0, 0]]
    unsure = table.set_column(2, "probe_person", pa.array(["ann", None, "ann"]))
    assert len(np.unique(_people(unsure))) == 6


def test_decisions_are_counted_whether_explained_or_not(tmp_path: Path) -> None:
    write_list(tmp_path)
    with (tmp_path / "pairs.csv").open("a") as file:
        file.write("\ngone.png,gone.png,1,even\n")
    results = explain_all(tmp_path, tmp_path / "run", methods=["xssab"], select="top 1")
    summary, rows = summarise(results.folder), results.pairs().to_pylist()
    threshold, decided = results.manifest.threshold, summary.decided
    scored = [row for row in rows if row["score"] is not None]
    wrong = [row["genuine"] for row in scored if (row["score"] >= threshold) != row["genuine"]]
    assert (decided.pairs, decided.unscored) == (len(rows), 1)
    assert decided.matches == sum(row["score"] >= threshold for row in scored)
    assert decided.matches + decided.non_matches == len(scored) == decided.genuine + decided.impostor
    assert (decided.false_non_matches, decided.false_matches) == (sum(wrong), len(wrong) - sum(wrong))
    told = " ".join(decided_in_words(decided, results.manifest))
    assert f"{len(rows)} pairs by " in told
    assert "without a score 1" in told
    assert f"Of {decided.genuine} pairs of one person {decided.false_non_matches} do not match" in told


def test_what_a_method_explained_is_told_with_its_caveat(run: BatchResults, summary: Summary) -> None:
    first, *noted = explained_in_words(summary, "xssab")
    assert first.startswith(f"xssab: {run.manifest.explained['xssab']} pairs explained (all); checked: ")
    assert f"{summary.verdicts['xssab']['supported']} supported" in first
    caveat = run.explanation(0, "xssab").notes[-1]
    assert f"Noted of {run.manifest.pairs} of them: {caveat}." in noted


@pytest.mark.parametrize("share", [12.4, -12.4])
def test_the_region_that_argues_most_is_told_with_its_side(share: float) -> None:
    told = region_in_words({"nose": 1.0, "right_brow": share})
    side = "for" if share > 0 else "against"
    assert told == f"right eyebrow argues most, {side} a match, with 12 % of the evidence"


@pytest.mark.parametrize("listed", ["apart", "all with all"])
def test_intervals_hold_the_mean_nineteen_times_of_twenty(listed: str) -> None:
    """Pairs that share people are no independent samples, whichever side these are on."""
    rng, people = np.random.default_rng(0), 30
    sides = np.stack(np.triu_indices(people, 1), axis=1)
    sides = sides if listed == "all with all" else np.arange(2 * people).reshape(-1, 2)
    held, widths = 0, []
    for _ in range(300):
        values = rng.standard_normal(2 * people)[sides].sum(axis=1) + rng.standard_normal(len(sides))
        (low,), (high,) = _intervals(values[:, None], sides)
        assert low is not None
        assert high is not None
        held += low < 0 < high
        widths.append(high - low)
    assert 0.90 < held / 300 < 0.99
    if listed == "apart":  # where none is shared, the interval is that of independent samples
        assert np.mean(widths) == pytest.approx(2 * 1.96 * (3 / people) ** 0.5, rel=0.06)


def test_telling_pairs_are_errors_first_and_each_once(run: BatchResults, summary: Summary) -> None:
    numbers = [pair.pair for pair in summary.telling]
    assert len(set(numbers)) == len(numbers)
    kinds = Counter(pair.why.partition(";")[0].partition(",")[0] for pair in summary.telling)
    contradicted = min(summary.verdicts["xssab"].get("contradicted", 0), 2)
    assert kinds["worst error"] == kinds["nearest to the threshold"] == kinds["most in one region"] == 2
    assert kinds["contradicted by its check"] <= contradicted
    rows = run.pairs().to_pylist()
    worst = [pair for pair in summary.telling if pair.why.startswith("worst error, a false ")]
    assert all(rows[pair.pair]["match"] != rows[pair.pair]["genuine"] for pair in worst)
    wrong = [row for row in rows if row["match"] != row["genuine"]]
    assert worst[0].margin == max((row["margin"] for row in wrong), key=abs)


def test_the_page_shows_plots_and_pairs(summary: Summary, tmp_path: Path) -> None:
    written = summary.save(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert all(path.stat().st_size > 0 for path in written)
    assert page.count("<img") == 3 + len(summary.telling)
    for name in page.split('src="')[1:]:
        assert (tmp_path / name.partition('"')[0]).is_file()
    assert {path.name for path in tmp_path.glob("regions-*.png")} == {
        f"regions-xssab-{kind}.png" for kind in ("decision", "error", "group")
    }
    for pair in summary.telling:
        assert f"Probe {pair.probe}, reference {pair.reference}" in page
    assert (tmp_path / "regions.csv").read_text().count("\n") == len(summary.regions) + 1
    assert sum(summary.verdicts["xssab"].values()) == summary.results.manifest.pairs


@pytest.mark.parametrize("name", ["all", "decision", "error", "score", "given_score", "region"])
def test_a_column_of_any_name_groups_and_takes_no_other_s_place(tmp_path: Path, name: str) -> None:
    write_list(tmp_path)
    text = (tmp_path / "pairs.csv").read_text()
    (tmp_path / "pairs.csv").write_text(text.replace("camera", name, 1))
    results = explain_all(tmp_path, tmp_path / "run", methods=["xssab"], select="top 1")
    found = summarise(results.folder, group=name)
    kinds = list(dict.fromkeys(row.by for row in found.regions))
    assert kinds[:3] == ["all", "decision", "error"]
    assert {row.group for row in found.regions if row.by == kinds[3]} <= {"even", "odd"}
    keys = [(row.by, row.group, row.region) for row in found.regions]
    assert len(set(keys)) == len(keys)


def test_what_a_column_does_not_say_is_a_group_of_its_own() -> None:
    table = pa.table(
        {
            "match": [True] * 4,
            "genuine": pa.nulls(4, pa.bool_()),
            "lens": ["", None, "None", "x"],
            "stop": [float("nan"), None, 2.0, 2.0],
        }
    )
    groups = {name: mask.tolist() for name, mask in list(_groups(table, "lens"))[-1][1]}
    assert groups["(empty)"] == [True, True, False, False]
    assert set(groups) == {"(empty)", "None", "x"}
    assert {name for name, _ in list(_groups(table, "stop"))[-1][1]} == {"(empty)", "2.0"}


def test_a_plot_shows_the_largest_groups_and_says_so() -> None:
    def row(group: str, pairs: int) -> RegionRow:
        return RegionRow(
            method="m", by="door", group=group, region="nose", pairs=pairs, share=1.0, low=None, high=None
        )

    figure = region_figure([row(f"_{number}", number + 1) for number in range(9)])
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == [f"{n + 1} pairs: _{n} (too few people for an interval)" for n in range(3, 9)]
    assert "the 6 largest of 9 groups" in figure.axes[0].get_title()


def test_columns_that_cannot_group(run: BatchResults) -> None:
    with pytest.raises(UnknownNameError, match="column 'lens'"):
        summarise(run.folder, group="lens")
    table = pa.table({"match": [True] * 60, "genuine": pa.nulls(60, pa.bool_()), "lens": list(range(60))})
    with pytest.raises(InputError, match="has 60 values: at most 50"):
        list(_groups(table, "lens"))
