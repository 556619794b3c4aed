"""From records to summaries, tables and plots, and the command that makes them."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluation_faces import PEOPLE, judge, pair_list
from typer.testing import CliRunner

from xfr_plugin.base.text import code_span, markdown_text
from xfr_plugin.cli.progress import duration
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation import MapProtocol, PlantedPlan, Results, read_pair_list, write_plantings
from xfr_plugin.evaluation.choice import balanced
from xfr_plugin.evaluation.report.curves import cost_figure, curve_figure
from xfr_plugin.evaluation.report.tables import markdown
from xfr_plugin.evaluation.results import Failure
from xfr_plugin.evaluation.summary import clustered_means, medians
from xfr_plugin.faces import RegionMap, template_regions
from xfr_plugin.faces.folder import in_split
from xfr_plugin.recognition import Recognizer, RecognizerCard, build_network, save_recognizer
from xfr_plugin.swaps.planting import fits

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def results(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return judge(faces, tmp_path_factory.mktemp("run"), limit=10)


def test_clustered_means_against_drawing_clusters_one_by_one() -> None:
    rng = np.random.default_rng(0)
    clusters = {f"pair{i}": f"person{i % 9}" for i in range(60)}
    effects = rng.normal(0, 1, 9)
    values = {pair: effects[int(name[6:])] + rng.normal(0, 0.1) for pair, name in clusters.items()}
    values["pair7"] = np.nan
    (row,) = clustered_means("p", {("", "", "m", None, "x"): values}, clusters)
    known = {pair: value for pair, value in values.items() if np.isfinite(value)}
    assert row.number == 59
    assert row.mean == pytest.approx(np.mean(list(known.values())))
    names, means = sorted(set(clusters.values())), []
    for _ in range(4000):
        drawn = [names[i] for i in rng.integers(len(names), size=len(names))]
        sample = [value for name in drawn for pair, value in known.items() if clusters[pair] == name]
        means.append(np.mean(sample))
    low, high = np.quantile(means, [0.025, 0.975])
    assert (row.low, row.high) == pytest.approx((low, high), abs=0.06)
    alone = clustered_means("p", {("", "", "m", None, "x"): values}, {pair: pair for pair in values})[0]
    assert alone.high - alone.low < 0.6 * (row.high - row.low)  # pairs of one person are not independent


def test_costs_are_medians() -> None:
    (row,) = medians("cost", {("", "", "s", None, "x"): {"a": 100.0, "b": 1.0, "c": 1.2, "d": 1.1, "e": 1.0}})
    assert row.mean == 1.1
    assert row.low == 1.0


def test_summary_means_are_those_of_an_obvious_loop(results: Results) -> None:
    rows = {
        (r.slice, r.metric, r.method): r
        for r in results.summary()
        if r.protocol == "planted" and not r.variant
    }
    for game in ("dissimilar", "similar"):
        for method in results.methods:
            values = [
                record.value
                for record in results.records
                if (record.method, record.protocol, record.variant, record.metric)
                == (method, "planted", "", "auc")
                and (facts := results.facts[record.pair])["game"] == game
                and facts["strength"] == 1
                and not facts["control"]
                and "+" not in facts["region"]
            ]
            assert len(values) == rows[game, "auc", method].number == 14
            assert rows[game, "auc", method].mean == pytest.approx(np.mean(values))
    moved = [abs(f["moved"]) > 0.1 for f in results.facts.values() if "moved" in f]
    assert any(moved)
    assert rows["dissimilar, control", "auc", "xssab"].number == 5
    assert rows["similar, two regions", "both", "chance_random"].number == 5


def test_leads_are_differences_on_the_same_pairs(results: Results) -> None:
    rows = results.leads("xssab", "planted", "dissimilar", "auc")
    assert {row.method for row in rows} == set(results.methods) - {"xssab"}
    means = {
        r.method: r.mean for r in results.summary() if r[:5] == ("planted", "dissimilar", "", "auc", None)
    }
    for row in rows:
        assert row.number == 14
        assert row.mean == pytest.approx(means["xssab"] - means[row.method])
        assert row.low < row.mean < row.high
    other = rows[0].method
    back = {row.method: row for row in results.leads(other, "planted", "dissimilar", "auc")}["xssab"]
    assert (back.low, back.mean, back.high) == pytest.approx((-rows[0].high, -rows[0].mean, -rows[0].low))
    assert results.leads("nobody", "planted", "dissimilar", "auc") == []


def test_facts_are_scores_before_and_after(results: Results) -> None:
    for entry in results.manifest.plantings:
        facts = results.facts[entry.name]
        assert facts["moved"] == pytest.approx(facts["planted_score"] - facts["score"])
        assert facts["genuine"] == (facts["game"] == "dissimilar")
        assert -1 <= facts["score"] <= 1


def test_curves_say_what_lies_along_them(results: Results) -> None:
    figure = curve_figure(results, "deletion", results.methods)
    assert figure is not None
    assert {axes.get_xlabel() for axes in figure.axes if axes.axison} == {"pixels removed, %"}


def test_files_of_results(results: Results, tmp_path: Path) -> None:
    written = {path.name for path in results.save(tmp_path)}
    assert {"results.md", "results.csv", "summary.csv", "pairs.csv", "failures.csv", "ranking.png"} <= written
    assert {"planted_regions.png", "curves_deletion.png", "cost_quality.png", "agreement.png"} <= written
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.records)
    first = results.records[0]
    assert (rows[0]["pair"], float(rows[0]["value"])) == (first.pair, first.value)
    assert all(path.stat().st_size > 5000 for path in tmp_path.glob("*.png"))
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    for words in (
        "Dissimilar game",
        "Chance: centre prior",
        "Top-1 by chance: 0.143",
        "0.286",
        "No method failed",
        "on the same plantings",
    ):
        assert words in text
    assert (tmp_path / "pairs.csv").read_text(encoding="utf-8").count("\n") == len(results.facts) + 1


def test_cost_and_quality_of_a_single_method_can_be_drawn(results: Results) -> None:
    """Matplotlib's own limits around this number of seconds are none, and divide by zero."""
    records = tuple(
        r._replace(value=0.0669452592021031) if r.protocol == "cost" else r
        for r in results.records
        if r.method in ("xssab", "chance_centre")
    )
    figure = cost_figure(replace(results, records=records, _cache={}), ["xssab"])
    assert figure is not None
    low, high = figure.axes[0].get_xlim()
    assert low < 0.066 < 0.067 < high


def test_parquet_holds_the_same(results: Results, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    results.save(tmp_path)
    table = parquet.read_table(tmp_path / "results.parquet")
    assert table.column("value").to_pylist()[:5] == [record.value for record in results.records[:5]]
    assert table.num_rows == len(results.records)


def test_lists_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("probe,reference,genuine\na/1.png,a/2.png,1\na/1.png,b/1.png,false\n")
    listed = read_pair_list(tmp_path / "pairs.csv")
    assert [entry.genuine for entry in listed.pairs] == [True, False]
    assert listed.people == ("a", "b")
    (tmp_path / "pairsDev.txt").write_text("1\nAnn\t1\t2\nAnn\t1\tBob\t3\n")
    assert read_pair_list(tmp_path / "pairsDev.txt").pairs[1].reference == "Bob/Bob_0003.jpg"
    (tmp_path / "people.txt").write_text("2\nAnn\t3\nBob\t3\n")
    assert read_pair_list(tmp_path / "people.txt").people == ("Ann", "Bob")
    people = {name: [f"{name}/{i}.png" for i in range(3)] for name in PEOPLE}
    drawn = PlantedPlan(count=3).draw(people)
    write_plantings(drawn, tmp_path / "plantings.json")
    assert read_pair_list(tmp_path / "plantings.json").plantings == tuple(drawn)
    (tmp_path / "bad.csv").write_text("probe,reference,genuine\na/1.png,a/2.png,perhaps\n")
    with pytest.raises(InputError, match="line 2"):
        read_pair_list(tmp_path / "bad.csv")
    with pytest.raises(InputError, match="no file of pairs"):
        read_pair_list(tmp_path / "none.txt")


def test_splits_share_nobody_and_limits_are_balanced() -> None:
    pairs = pair_list().pairs
    for person in PEOPLE:
        assert in_split(person, "dev") != in_split(person, "test")
    splits = [balanced(pairs, split, None) for split in ("dev", "test")]
    people = [{Path(file).parent.name for entry in split for file in entry.files} for split in splits]
    assert not people[0] & people[1]
    assert sum(entry.genuine for entry in balanced(pairs, "all", 10)) == 5


def test_plans_grow_and_weaker_plantings_have_the_same_faces() -> None:
    people = {name: [f"{name}/{i}.png" for i in range(4)] for name in PEOPLE}
    few, many = (PlantedPlan(count=count).draw(people) for count in (15, 30))
    assert set(few) <= set(many)
    assert few == PlantedPlan(count=15).draw(people)
    weak = [p for p in few if p.strength < 1]
    assert len(weak) == 10
    assert {p.model_copy(update={"strength": 1.0}) for p in weak} <= set(few)
    assert {p.blending for p in few} == {"feather", "hard", "poisson", "whole"}
    single = [p for p in PlantedPlan(count=28).draw(people) if not p.control and p.strength == 1]
    both = {(p.game, p.region, p.blending) for p in single if "+" not in p.region}
    assert len(both) == 2 * 7 * 4  # every region with every blending, in both games
    assert sum("+" in p.region for p in few) == sum(p.control for p in few) == 10


def test_donors_that_are_turned_or_hidden_do_not_fit() -> None:
    straight = template_regions()
    turned = np.where(straight.mask("left_cheek") & (np.arange(112) > 70), 0, straight.labels)
    hidden = np.where(straight.mask("forehead"), 0, straight.labels)
    assert fits(straight, straight, "nose+mouth")
    assert not fits(straight, RegionMap(turned.astype(np.uint8)), "nose")
    assert not fits(straight, RegionMap(hidden.astype(np.uint8)), "forehead")
    assert fits(straight, RegionMap(hidden.astype(np.uint8)), "mouth")


def test_the_command(faces: Path, tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    network = build_network("faceid")
    card = RecognizerCard(name="net", architecture="faceid", input_size=(160, 120))
    save_recognizer(Recognizer(network, input_size=(160, 120), threshold=0.2), weights, card)
    rows = [f"{p.probe},{p.reference},{int(p.genuine)}" for p in pair_list().pairs]
    (tmp_path / "pairs.csv").write_text("\n".join(["probe,reference,genuine", *rows]))
    arguments = [
        "evaluate", "--methods", "xssab", "--protocols", "planted,deletion", "--faces", str(faces), "--limit", "2",
        "--pairs", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out"), "-r", str(weights),
        "--threshold", "0.3", "--strengths", "", "--no-region-pairs", "--no-controls",
    ]  # fmt: skip
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "results.md" in result.stdout
    assert "18 of 18" in result.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["threshold"] == 0.3
    assert len(manifest["plantings"]) == 4
    again = RUNNER.invoke(app, [*arguments, "--seed", "5"])
    assert again.exit_code == 2
    assert "this folder holds another run: seed was 0 and is now 5" in again.stderr
    wrong = RUNNER.invoke(app, [*arguments, "--split", "left"])
    assert wrong.exit_code == 2
    assert "'--split': 'left' is not one of" in wrong.stderr


def test_durations_in_words() -> None:
    assert [duration(s) for s in (40.2, 700, 3 * 3600 + 300)] == ["40 s", "12 min", "3 h 05 min"]


def test_the_snippets_of_the_page(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lfw112").symlink_to(faces)
    lines = [str(len(PEOPLE)), *(f"{name}\t3" for name in PEOPLE)]
    (tmp_path / "pairsDevTest.txt").write_text("\n".join(lines))
    cheap = first.replace("limit=70", "limit=1").replace(', "fggb"', "")
    exec(cheap, {})
    assert "xssab planted dissimilar auc" in capsys.readouterr().out
    assert (tmp_path / "judged" / "results.md").is_file()
    space: dict[str, type[MapProtocol]] = {}
    exec(second, space)
    results = judge(faces, tmp_path / "own", protocols=[space["Concentration"]()], limit=2)
    assert all(0.1 <= record.value <= 1 for record in results.records if record.protocol == "concentration")


@pytest.mark.parametrize(
    "text", ["a | b", "`x` | y", "line\nbreak | c", "<script>", "[x](y)", "*b* _i_ ~s~", "$m$", "\\|"]
)
def test_text_of_others_stays_in_its_cell(results: Results, text: str) -> None:
    named = results.manifest.model_copy(update={"recognizer": {"name": text}})
    failures = (Failure("pair", text, text, text),)
    page = markdown(replace(results, manifest=named, failures=failures), [])
    (row,) = [
        line for line in page.splitlines() if line.endswith("|") and line.count(markdown_text(text)) == 3
    ]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 5  # those of the table
    assert not re.search(r"(?<!\\)[<`*$\[]", row)
    heading = page.split("# Evaluation\n\n")[1].splitlines()[0]
    assert heading.startswith(f"{code_span(text)}, threshold")


def test_code_spans_hold_backticks() -> None:
    assert code_span("a`b") == "`` a`b ``"
    assert code_span("``") == "``` `` ```"
    assert code_span("plain_name") == "`plain_name`"
