"""`xfr batch` and `xfr summary`: from a list to tables, the numbers of `xfr explain`, and lines instead of a bar."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from xfr_plugin.bulk import RegionRow
from xfr_plugin.cli.tables import summary_tables
from xfr_plugin.cli.xfr import app


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    path = tmp_path / "pairs.csv"
    path.write_text(
        "probe,reference,genuine,door\na.png,b.png,0,north\na.png,c.png,0,south\na.png,d.png,1,south\n"
    )
    return path


def test_pairs_are_explained_and_summed_up(pairs: Path) -> None:
    out = pairs.parent / "run"
    runner = CliRunner()
    arguments = ["batch", str(pairs), "--out", str(out), "--methods", "xssab", "--workers", "1"]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "3 pairs, 2 explained by xssab" in done.stdout
    assert "failed: d.png: d.png cannot be read: " in done.stdout
    assert "1 photo failed, and so 1 pair; 0 explanations" in done.stdout
    assert "explaining: 2 of 2" in done.stderr
    elsewhere = pairs.parent / "elsewhere"
    table = runner.invoke(app, ["summary", str(out), "--group", "door", "--out", str(elsewhere)])
    assert table.exit_code == 0, table.output
    assert "3 pairs by xfr_compact128" in table.stdout
    assert "xssab: 2 pairs explained (all)" in table.stdout
    assert str(elsewhere / "index.html") in table.stdout
    assert not (out / "summary").exists()
    found = json.loads(runner.invoke(app, ["summary", str(out), "--json"]).stdout)
    assert {row["group"] for row in found["regions"] if row["by"] == "all"} == {"all"}
    assert {row["pair"] for row in found["telling"]} == {0, 1}
    assert found["decided"]["unscored"] == 1


def test_what_was_not_explained_cannot_be_summed_up(pairs: Path) -> None:
    out = pairs.parent / "run"
    runner = CliRunner()
    assert runner.invoke(app, ["batch", str(pairs), "--out", str(out), "--methods", "none"]).exit_code == 0
    done = runner.invoke(app, ["summary", str(out)])
    assert done.exit_code == 2
    assert "nothing is explained" in done.stderr


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ("gone.png,a.png,0,x\n", ("--methods", "none"), "no pair of .* could be decided"),
        ("a.png,b.png,0,x\n", ("--methods", "bilrp"), "unknown method"),
    ],
)
def test_a_run_in_which_nothing_worked_is_no_success(
    pairs: Path, rows: str, words: tuple[str, ...], said: str
) -> None:
    pairs.write_text(f"probe,reference,genuine,door\n{rows}")
    ended = CliRunner().invoke(
        app, ["batch", str(pairs), "--out", str(pairs.parent / "run"), *words, "--workers", "1"]
    )
    assert ended.exit_code == 2
    assert re.search(said, ended.stderr)


def test_the_same_command_goes_on_where_the_run_lies_among_the_photos(pairs: Path) -> None:
    words = ["batch", str(pairs.parent), "--out", str(pairs.parent / "run"), "--methods", "xssab"]
    for _ in range(2):
        done = CliRunner().invoke(app, [*words, "--pictures", "all", "--workers", "1"])
        assert done.exit_code == 0, done.output
        assert "3 pairs, 3 explained by xssab, 3 pictures" in done.stdout


def test_a_photo_that_fails_is_told_once_however_many_pairs_it_is_in(pairs: Path) -> None:
    pairs.write_text("probe,reference\na.png,d.png\nd.png,b.png\nc.png,d.png\na.png,b.png\n")
    words = ["batch", str(pairs), "--out", str(pairs.parent / "run"), "--methods", "xssab"]
    done = CliRunner().invoke(app, [*words, "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("d.png") == 2  # its name, and the reason
    assert "4 pairs, 1 explained by xssab" in done.stdout
    assert "1 photo failed, and so 3 pairs; 0 explanations" in done.stdout


def test_pictures_are_of_explained_pairs(pairs: Path) -> None:
    words = ["batch", str(pairs), "--out", str(pairs.parent / "run"), "--methods", "xssab"]
    done = CliRunner().invoke(app, [*words, "--select", "top 1", "--pictures", "all", "--workers", "1"])
    assert "1 explained by xssab, 1 picture:" in done.stdout
    assert "pictures: 1 of 1" in done.stderr


def test_a_summary_can_be_read_in_80_columns() -> None:
    def row(by: str, group: str, region: str) -> RegionRow:
        return RegionRow(
            method="leave_one_out", by=by, group=group, region=region, pairs=12_345,
            share=-0.04, low=-12.3, high=-0.01,
        )  # fmt: skip

    groups = [
        ("all", "all"),
        ("decision", "match"),
        ("decision", "no match"),
        *(("door", f"d{n}") for n in range(7)),
    ]
    rows = [row(by, group, region) for by, group in groups for region in ("right_brow", "background")]
    stream = io.StringIO()
    Console(file=stream, width=80).print(*summary_tables(rows))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in stream.getvalue().replace(" … ", " ")
    for name in ("right eyebrow", "background"):
        told = [line for line in lines if f" {name} " in line]
        assert sum(line.count("+0.0 (-12.3 … 0.0)") for line in told) == len(groups)
