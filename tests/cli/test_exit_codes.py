"""Exit codes: 0 and 1 of `xfr verify` are decisions that were printed; all else ends with another code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import xfr_plugin
from xfr_plugin.cli.__main__ import main
from xfr_plugin.cli.codes import (
    EXIT_BAD_INPUT,
    EXIT_CLOSED_PIPE,
    EXIT_FAILED,
    EXIT_MATCH,
    EXIT_NON_MATCH,
    EXIT_STOPPED,
    EXIT_UNWRITTEN,
)
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.recognition import Provenance


def decision(score: float = 0.9) -> Verification:
    return Verification(
        score=score, threshold=0.3, threshold_source="given", recognizer="r", provenance=Provenance()
    )


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | Verification], None]:
    """Make `verify` return or raise something, without a recognizer."""

    def set_outcome(value: BaseException | Verification) -> None:
        def verify(*_: object, **__: object) -> Verification:
            if isinstance(value, BaseException):
                raise value
            return value

        monkeypatch.setattr(xfr_plugin, "verify", verify, raising=False)
        monkeypatch.setattr(xfr_plugin, "load_recognizer", lambda *_, **__: None, raising=False)

    return set_outcome


def verify(*options: str, charset: str = "utf-8") -> Result:
    return CliRunner(charset=charset).invoke(app, ["verify", "a.jpg", "b.jpg", *options])


@pytest.mark.parametrize(("score", "code"), [(0.9, EXIT_MATCH), (0.1, EXIT_NON_MATCH)])
@pytest.mark.parametrize("charset", ["utf-8", "ascii", "latin-1", "cp1252", "cp437", "utf-16"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_any_encoding_can_say_the_decision(
    outcome: Callable[[Verification], None], charset: str, score: float, code: int, options: tuple[str, ...]
) -> None:
    outcome(decision(score).model_copy(update={"threshold_source": "≥ ① \N{GRINNING FACE} \udcff"}))
    if options:  # a lone surrogate is no JSON
        outcome(decision(score).model_copy(update={"threshold_source": "≥ ① \N{GRINNING FACE}"}))
    result = verify(*options, charset=charset)
    assert result.exit_code == code
    printed = result.stdout_bytes.decode(charset)
    if options:
        assert Verification.model_validate_json(printed).threshold_source == "≥ ① \N{GRINNING FACE}"
    else:
        assert f"score {score:.4f}" in printed


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (RuntimeError("of a library"), EXIT_FAILED, "of a library"),
        (KeyError(), EXIT_FAILED, "KeyError"),
        (SystemExit(0), EXIT_FAILED, "SystemExit"),
        (SystemExit(1), EXIT_FAILED, "SystemExit"),
        (SystemExit(None), EXIT_FAILED, "SystemExit"),
        (MemoryError(), EXIT_FAILED, "MemoryError"),
        (RecursionError("deep"), EXIT_FAILED, "deep"),
        (asyncio.CancelledError(), EXIT_FAILED, "CancelledError"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), EXIT_FAILED, "UnicodeDecodeError"),
        (PermissionError(13, "not allowed", "x"), EXIT_FAILED, "not allowed"),
        (OSError(28, "No space left on device"), EXIT_UNWRITTEN, "No space left"),
        (KeyboardInterrupt(), EXIT_STOPPED, "interrupted"),
        (InputError("two\nlines"), EXIT_BAD_INPUT, "two"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_no_error_ends_as_a_decision(
    outcome: Callable[[BaseException], None], error: BaseException, code: int, word: str
) -> None:
    outcome(error)
    result = verify()
    assert result.exit_code == code
    assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert not result.stdout


def test_the_traceback_is_shown_on_demand(
    outcome: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(RuntimeError("of a library"))
    assert "XFR_TRACEBACK=1" in verify().stderr
    monkeypatch.setenv("XFR_TRACEBACK", "1")
    assert "Traceback" in verify().stderr


def test_warnings_as_errors_are_no_decision(
    outcome: Callable[[Verification], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(decision())
    monkeypatch.setattr(
        Verification, "match", property(lambda _: (_ for _ in ()).throw(FutureWarning("new")))
    )
    result = verify()
    assert result.exit_code == EXIT_FAILED
    assert "FutureWarning" in result.stderr


def test_wrong_usage_ends_with_2_and_help_with_0() -> None:
    assert CliRunner().invoke(app, ["verify"]).exit_code == EXIT_BAD_INPUT
    assert CliRunner().invoke(app, ["verify", "a", "b", "--fmr", "x"]).exit_code == EXIT_BAD_INPUT
    assert CliRunner().invoke(app, ["verify", "--help"]).exit_code == EXIT_MATCH


PROGRAM = """
import os, select, signal, sys, time, types, xfr_plugin
if "NOBODY_READS" in os.environ:  # then nothing is written before the reader of the pipe is gone
    gone = select.poll()
    gone.register(1, select.POLLERR)
    gone.poll()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
made = types.SimpleNamespace(match=True, score=0.9, threshold=0.3, threshold_source="given", margin=0.6)
made.model_dump_json = lambda indent: "[]"
def verify(*_, **__):
    {inside}
    return made
xfr_plugin.verify, xfr_plugin.load_recognizer = verify, lambda *_, **__: None
from xfr_plugin.cli.__main__ import main
main()
"""
"""The command in a process whose answer is made up: without torch it takes half a second."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "inside", "code"),
    [
        ('PYTHONIOENCODING=ascii "$@" | grep -q MATCH; echo ${PIPESTATUS[0]}', "pass", EXIT_MATCH),
        ('PYTHONIOENCODING=latin-1 "$@" >/dev/null; echo $?', "pass", EXIT_MATCH),
        ('PYTHONIOENCODING=cp1252 "$@" >/dev/null; echo $?', "made.match = False", EXIT_NON_MATCH),
        ('LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "$@" >/dev/null; echo $?', "pass", EXIT_MATCH),
        ('"$@" >/dev/full; echo $?', "pass", EXIT_UNWRITTEN),
        ('PYTHONUNBUFFERED=1 "$@" --json >/dev/full; echo $?', "pass", EXIT_UNWRITTEN),
        ('"$@" --help >/dev/full; echo $?', "pass", EXIT_UNWRITTEN),
        ('"$@" >&-; echo $?', "pass", EXIT_UNWRITTEN),
        ('"$@" 2>&- >/dev/null; echo $?', "pass", EXIT_MATCH),
        ('"$@" >/dev/null 2>/dev/full; echo $?', "import warnings; warnings.warn('x')", EXIT_MATCH),
        ('"$@" >/dev/null 2>/dev/full; echo $?', "1 / 0", EXIT_FAILED),
        ('NOBODY_READS= "$@" | true; echo ${PIPESTATUS[0]}', "pass", EXIT_CLOSED_PIPE),
        ('NOBODY_READS= "$@" --json | true; echo ${PIPESTATUS[0]}', "pass", EXIT_CLOSED_PIPE),
        ('NOBODY_READS= "$@" --help | true; echo ${PIPESTATUS[0]}', "pass", EXIT_CLOSED_PIPE),
        ('"$@" >/dev/null; echo $?', "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", EXIT_STOPPED),
        ('"$@" >/dev/null; echo $?', "raise Exception", EXIT_FAILED),
        ('"$@" >/dev/null; echo $?', "sys.exit(0)", EXIT_FAILED),
    ],
)
def test_a_process_exits_with_a_decision_only_after_it_was_written(
    shell: str, inside: str, code: int, tmp_path: Path
) -> None:
    """What Python itself does with its streams at exit is seen from outside only."""
    program = [sys.executable, "-c", PROGRAM.format(inside=inside), "verify", "a.jpg", "b.jpg"]
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(code), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_what_cannot_be_imported_is_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xfr_plugin.cli.xfr", None)  # the import then fails
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == EXIT_FAILED
