"""The files that docs/contributing.md shows, put where it says that they belong, for as long as a test needs them."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from xfr_plugin.base.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "contributing.md"


def files_shown() -> dict[str, str]:
    """Class that a file defines → text of the file."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {re.findall(r"^class (\w+)", block, re.MULTILINE)[0]: block for block in blocks}


@contextmanager
def contributed(cls: str, package: str, registry: Registry[Any], folder: Path) -> Iterator[None]:
    """One file more in a package, which nothing else knows of: neither an import nor a list names it."""
    (folder / "contributed.py").write_text(files_shown()[cls], encoding="utf-8")
    room = importlib.import_module(package)
    with pytest.MonkeyPatch.context() as patch, registry.restored():
        patch.setattr(room, "__path__", [*room.__path__, str(folder)])
        try:
            yield
        finally:
            sys.modules.pop(f"{package}.contributed", None)
            room.__dict__.pop("contributed", None)
