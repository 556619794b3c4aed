"""Documentation that points somewhere: links lead to files, named scripts, commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from xfr_plugin.attr import METHODS
from xfr_plugin.cli.main import app

ROOT = Path(__file__).parents[1]
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


def test_every_method_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for method in METHODS.values():
        assert f"`{method.name}`" in text
        for option in method.options():
            assert f"`{option}`" in text, option


def test_no_placeholder_is_left() -> None:
    for page in PAGES:
        assert not re.search(r"@[A-Z_]+@|\b[A-Z]+_TABLE\b|\bTODO\b", page.read_text(encoding="utf-8")), (
            page.name
        )
