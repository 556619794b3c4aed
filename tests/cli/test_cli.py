"""The command line: exit codes for scripts, one-line errors, JSON on demand."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from xfr_plugin import Explanation, __version__
from xfr_plugin.base.weights import write_weights
from xfr_plugin.cli.xfr import app
from xfr_plugin.recognition import build_network

RUNNER = CliRunner()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two aligned crops and weights of the plain recognizer."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (160, 120, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    Image.new("RGB", (200, 150), "grey").save(tmp_path / "blank.png")
    torch.manual_seed(0)
    write_weights(tmp_path / "net.safetensors", build_network("faceid").state_dict(), {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int) -> str:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stdout if code < 2 else result.stderr


@pytest.mark.usefixtures("workplace")
def test_verify_exits_with_the_decision() -> None:
    assert "MATCH" in run("verify", "a.png", "a.png", "-r", "net.safetensors", "--threshold", "0.99", code=0)
    output = run("verify", "a.png", "b.png", "-r", "net.safetensors", "--threshold", "1", "--json", code=1)
    decision = json.loads(output)
    assert decision["match"] is False
    assert decision["threshold"] == 1


def test_explain_writes_picture_and_document(workplace: Path) -> None:
    output = run(
        "explain", "a.png", "b.png", "-r", "net.safetensors", "--threshold", "0.5", "-m", "xssab",
        "-o", "arguments=for", "-o", "blur=[5, 1.5]", "--out", "result", code=0,
    )  # fmt: skip
    assert "net evidence by region" in output
    assert "most for a match" in output
    assert "xssab: on pairs of known evidence" in output
    explanation = Explanation.load(workplace / "result" / "explanation.json")
    assert explanation.method == "xssab"
    assert explanation.options == {"arguments": "for", "blur": [5, 1.5]}
    assert (workplace / "result" / "explanation.png").stat().st_size > 10_000


@pytest.mark.parametrize("method", ["auto", "xssab"])
def test_report_writes_a_page_whose_command_makes_it_again(
    workplace: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2", reason="reports need Jinja2 (extra `report`)")
    monkeypatch.setattr("xfr_plugin.explanation.report.build._LONGEST", 0.0)  # Shapley values take their time
    options = ("-r", "net.safetensors", "--threshold", "0.5", "-m", method)
    output = run("report", "a.png", "b.png", *options, "--out", "result/report.html", code=0)
    assert "written:  result/report.html" in output
    file = workplace / "result" / "report.html"
    first = file.read_text(encoding="utf-8")
    command = shlex.split(html.unescape(first.partition("<pre><code>")[2].partition("</code>")[0]))
    assert command[:4] == ["xfr", "report", "a.png", "b.png"]
    assert "auto" not in (command[command.index("--method") + 1], command[command.index("--matches") + 1])
    file.unlink()
    run(*command[1:], code=0)
    made = re.compile(r"<dt>Made</dt>.*")
    assert made.sub("", file.read_text(encoding="utf-8")) == made.sub("", first)


@pytest.mark.usefixtures("workplace")
def test_explain_as_json_is_the_document() -> None:
    output = run(
        "explain",
        "a.png",
        "b.png",
        "-r",
        "net.safetensors",
        "--threshold",
        "0.5",
        "-m",
        "xssab",
        "--json",
        code=0,
    )
    assert json.loads(output)["format"] == "xfr-explanation/1"


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "none.jpg", "a.png"), "no photo at none.jpg"),
        (("verify", "net.safetensors", "a.png"), "not an image"),
        (("verify", "blank.png", "b.png"), "no face was found"),
        (("verify", "a.png", "b.png", "--alignment", "maybe"), "--alignment"),
        (("verify", "a.png", "b.png", "--fmr", "0.01"), "not calibrated"),
        (("verify", "a.png", "b.png", "--threshold", "3"), "cosine in −1…1"),
        (("verify", "a.png", "b.png", "--device", "cuda:77"), "cuda:77"),
        (("verify", "a.png", "b.png", "--architecture", "iresnet18"), "does not fit IResNet"),
        (("explain", "a.png", "b.png", "--method", "fgbb"), "did you mean 'fggb'"),
        (("explain", "a.png", "b.png", "-o", "blur"), "name=value"),
        (("explain", "a.png", "b.png", "-m", "fggb", "-o", "gradient=odd"), "'signed' or 'absolute'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    threshold = () if {"--threshold", "--fmr"} & set(arguments) else ("--threshold", "0.5")
    output = run(*arguments, "-r", "net.safetensors", *threshold, code=2)
    lines = output.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("xfr: error: ")
    assert message in lines[0]


@pytest.mark.usefixtures("workplace")
def test_wrong_recognizers_are_one_line() -> None:
    assert "unknown recognizer 'net'" in run("verify", "a.png", "b.png", "-r", "net", code=2)
    assert "no weight file" in run("verify", "a.png", "b.png", "-r", "none.pt", code=2)
    assert "no public address" in run("download", "faceid_plain", code=2)
    assert "ships with the package" in run("download", "xfr_compact128", code=2)


def test_usage_errors_exit_with_2_too() -> None:
    run("verify", "only-one.png", code=2)
    run("nonsense", code=2)


def test_lists_and_help() -> None:
    assert "fggb" in run("methods", code=0)
    assert "mobilefacenet_ms1m" in run("recognizers", code=0)
    assert __version__ in run("--version", code=0)
    for command in ("verify", "explain"):
        assert "Example" in run(command, "--help", code=0)
