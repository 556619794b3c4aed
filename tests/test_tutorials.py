"""The tutorials run as they are, and what is stored of them holds nothing of whoever ran them."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

for name in ("nbclient", "nbformat", "ipykernel"):
    pytest.importorskip(name, reason=f"{name} is not installed (extra `dev`)")

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def outputs(page: Path) -> list[dict[str, Any]]:
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_there_are_four_and_they_are_small() -> None:
    assert len(PAGES) == 4
    assert sum(page.stat().st_size for page in PAGES) < 1_500_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_stored_outputs_are_whole_and_nobodys(page: Path) -> None:
    found = outputs(page)
    assert found, "it was never run: python benchmarks/tutorials.py"
    assert {output["output_type"] for output in found} <= {"stream", "execute_result", "display_data"}
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", json.dumps([{**one, "image/jpeg": ""} for one in found]))
    assert not re.search(r"/(home|root|tmp|usr|work|Users|private)/|[A-Z]:\\\\|stderr|Warning", text)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, where it leaves nothing; on real data too, where there is some."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    folder = tmp_path / "here"
    folder.mkdir()
    execute = runpy.run_path(str(ROOT / "benchmarks" / "tutorials.py"))["execute"]
    notebook = execute(page, folder)
    assert sum(len(cell.get("outputs", [])) for cell in notebook.cells) >= len(outputs(page)) - 1
    assert list(folder.iterdir()) == []
