"""Documentation that points somewhere: links lead to files, named scripts, commands and options exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from xfr_plugin.attr import METHODS
from xfr_plugin.cli.xfr import app

ROOT = Path(__file__).parents[1]
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for named in re.findall(r"\b(?:benchmarks|tests|docs/models|xfr_plugin)/[\w/]+\.(?:py|toml|md)\b", text):
        assert (ROOT / named).is_file(), named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    commands = get_command(app).commands
    for name in re.findall(r"(?:^|`)\s*xfr ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert name in commands


@pytest.mark.parametrize("name", METHODS)
def test_every_option_of_a_method_is_documented_in_its_class(name: str) -> None:
    for option in METHODS[name].options():
        assert re.search(
            rf"^\s+(\w+, )*{option}(, \w+)*: \S", METHODS[name].cls.__doc__ or "", re.MULTILINE
        ), option


@pytest.mark.parametrize("page", SCRIPT["TABLES"])
def test_tables_say_what_methods_and_architectures_say(page: str) -> None:
    """A row that is wrong fails here: `make tables` writes them. One that is new may wait for the release."""
    made, written = SCRIPT["TABLES"][page](), SCRIPT["table_of"](page)
    assert len(written) > 2
    assert [line for line in made if line in written] == written


def test_no_placeholder_is_left() -> None:
    for page in PAGES:
        assert not re.search(r"@[A-Z_]+@|\b[A-Z]+_TABLE\b|\bTODO\b", page.read_text(encoding="utf-8")), (
            page.name
        )
