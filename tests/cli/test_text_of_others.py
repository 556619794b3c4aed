"""Text from outside is printed as the text that it is: paths, names, messages, by whatever prints."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

import xfr_plugin
from xfr_plugin.base.text import printable
from xfr_plugin.cli.output import print_decision, print_files, print_lines, terminal, working
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.recognition import Provenance

TEXTS = (
    "a[/b]c", "[bold red]x[/]", "[link=file:///etc]x[/link]", "[@click=app.bell]x", "x:smile:y", r"\[b]", "[/]",
    "$a_b$", "a|b", "{0} %s {name}", "名前.jpg", "م\u200cی",
)  # fmt: skip
"""As they are, in whatever place."""

CONTROL = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "a\rMATCH",
    "a\nMATCH",
    "\x9b31m",
    "\u202egpj.exe",
    "a\tb",
    "\udcff",
    "\x00",
)
"""What would move the cursor, forge a line, or turn the direction of writing."""


def decision(words: str) -> Verification:
    return Verification(
        score=0.9,
        threshold=0.3,
        threshold_source=words,
        recognizer=words,
        provenance=Provenance(source=words),
    )


@pytest.mark.parametrize("text", TEXTS)
def test_every_printer_shows_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(text)
    print_decision(decision(text))
    print_files([text], Path(text), Path(text))
    assert capsys.readouterr().out.replace(str(Path(text)), text).count(text) == 5


@pytest.mark.parametrize("text", TEXTS)
def test_tables_and_progress_show_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal()
    console.width = 200
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    console.print(table)
    assert capsys.readouterr().out.count(text) == 4
    assert str(working(text)._spinner.text) == f"{text} …"


@pytest.mark.parametrize("text", CONTROL)
def test_nothing_from_outside_controls_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(text, text)
    print_decision(decision(text))
    table = Table("name")
    table.add_row(text.replace("\n", "\r"))
    terminal().print(table)
    printed = capsys.readouterr().out
    assert all(sign.isprintable() or sign == "\n" for sign in printed)
    assert len(printed.splitlines()) == 3 + 5  # the table's


@pytest.mark.parametrize("text", [*TEXTS, *CONTROL])
def test_messages_show_paths_as_they_are(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(*_: object, **__: object) -> None:
        raise InputError(f"cannot use {text}")

    monkeypatch.setattr(xfr_plugin, "verify", verify, raising=False)
    monkeypatch.setattr(xfr_plugin, "load_recognizer", lambda *_, **__: None, raising=False)
    result = CliRunner().invoke(app, ["verify", "a", "b"])
    assert result.stderr == f"xfr: error: cannot use {printable(text)}\n"


def test_a_terminal_with_colours_gets_them_from_us_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    print_decision(decision("[red]x[/] 0.5 /tmp/a:b"))
    before, after = stream.getvalue().split("  score")
    assert before == "\x1b[1;34mMATCH\x1b[0m"
    assert "\x1b" not in after
    assert "([red]x[/] 0.5 /tmp/a:b)" in after
