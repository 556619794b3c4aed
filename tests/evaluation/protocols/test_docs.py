"""The page on protocols names what there is, and its snippet runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from xfr_plugin.evaluation.protocols import PROTOCOLS

PAGE = (Path(__file__).parents[3] / "docs" / "protocols.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_and_metric_is_documented(name: str) -> None:
    protocol = PROTOCOLS[name]()
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    for metric, higher in protocol.higher_is_better.items():
        assert f"`{metric}` {'↑' if higher else '↓'}" in row


def test_its_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    for snippet in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(snippet, "docs/protocols.md", "exec"), namespace)
    assert "'magnitude'" in capsys.readouterr().out
