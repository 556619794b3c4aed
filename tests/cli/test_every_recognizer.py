"""Every command takes every kind of recognizer: a transformer, files, functions, and what gives scores only."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.own_recognizers import KINDS as OWN
from helpers.own_recognizers import forget, own_deployment
from helpers.serving_faces import crops
from typer.testing import CliRunner

from xfr_plugin.bulk.results import BatchResults
from xfr_plugin.cli.xfr import app

PEOPLE = 6
KINDS = ("transformer", "onnx", "module", "scores")
COMMANDS: dict[str, tuple[str, ...]] = {
    "verify": ("verify", "0/0.png", "0/1.png", "--alignment", "aligned"),
    "explain": ("explain", "0/0.png", "0/1.png", "--alignment", "aligned", "--check"),
    "compare": ("compare", "0/0.png", "1/0.png", "--alignment", "aligned", "-m", "mery_avg,xssab"),
    "batch": (
        "batch",
        "pairs.csv",
        "-m",
        "mery_avg",
        "--select",
        "random 2",
        "--alignment",
        "aligned",
        "--workers",
        "2",
    ),
    "calibrate": ("calibrate", "--faces", ".", "--pairs", "pairs.csv", "--shares", "1", "--out", "card.json"),
    "evaluate": (
        "evaluate",
        "--faces",
        ".",
        "--pairs",
        "pairs.csv",
        "--limit",
        "2",
        "-m",
        "leave_one_out,xssab",
    ),
    "report": ("report", "0/0.png", "0/1.png", "--alignment", "aligned"),
}
SLOW = ("evaluate", "report", "explain")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with three crops of each of six people, and pairs of them."""
    lines = ["probe,reference,genuine"]
    for person in range(PEOPLE):
        (tmp_path / str(person)).mkdir()
        for number in range(3):
            (tmp_path / str(person) / f"{number}.png").write_bytes(crops(PEOPLE + 2)[person + number])
        lines.append(f"{person}/0.png,{person}/1.png,1")
        lines += [f"{person}/0.png,{other}/1.png,0" for other in range(person + 2, PEOPLE)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # pooled pixels take all faces for one, and crops are taken as they are
        yield tmp_path
    forget()


def named(kind: str, folder: Path) -> tuple[str, ...]:
    return "-r", own_deployment(kind, folder).recognizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in COMMANDS]
)
def test_every_command_takes_it(command: str, kind: str, workplace: Path) -> None:
    result = CliRunner().invoke(app, [*COMMANDS[command], *named(kind, workplace)])
    decides = command in ("verify", "explain", "report")  # and ends with 1 for no match
    assert result.exit_code in ((0, 1) if decides else (0,)), (result.output, result.exception)
    if command == "compare":
        rows = [line for line in result.stdout.splitlines() if "xssab" in line]
        assert rows
    if command == "batch":
        assert "2 explained by mery_avg" in result.stdout
    if command == "explain":
        document = json.loads((workplace / "xfr-out" / "explanation.json").read_text())
        assert document["method"] == "leave_one_out"
    if command == "evaluate":
        judged = (workplace / "xfr-evaluation" / "results.md").read_text(encoding="utf-8")
        assert "leave_one_out" in judged


def test_a_batch_decides_by_scores_as_a_single_pair_is_decided(workplace: Path) -> None:
    given = (*named("scores", workplace), "--alignment", "aligned")
    single = CliRunner().invoke(app, ["verify", "0/0.png", "0/1.png", *given, "--json"])
    done = CliRunner().invoke(app, ["batch", "pairs.csv", "-m", "none", *given])
    assert done.exit_code == 0, done.output
    scores = BatchResults(workplace / "xfr-batch").pairs()["score"].to_pylist()
    assert scores[0] == pytest.approx(json.loads(single.stdout)["score"], abs=1e-4)
    assert min(scores) < 60 < max(scores)  # of the function's own scale


def test_kinds_are_those_that_deployments_are_tested_with() -> None:
    assert set(KINDS) <= set(OWN)
