"""The tables of docs that say what methods and architectures say about themselves.

python benchmarks/tables.py     # writes them; so does `make tables`
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xfr_plugin.attr import METHODS
from xfr_plugin.recognition import ARCHITECTURES

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- benchmarks/tables.py writes from here -->", "<!-- to here -->"


def methods_table() -> list[str]:
    """Markdown: a row for each attribution method."""
    rows = (
        (f"`{name}`", f"`{m.cls.__name__}`", m.summary, m.needs, m.cost, f"{m.paper} ({m.year})")
        for name, m in METHODS.items()
    )
    return _table(("method", "class", "what it is", "needs", "passes (pair, D channels)", "source"), rows)


def architectures_table() -> list[str]:
    """Markdown: a row for each architecture."""
    rows = (
        (f"`{name}`", a.paper, a.layout, f"{a.input_size[0]}×{a.input_size[1]}")
        for name, a in ARCHITECTURES.items()
    )
    return _table(("architecture", "paper", "key layout", "input"), rows)


TABLES = {"methods.md": methods_table, "recognizers.md": architectures_table}
"""Page → what makes its table."""


def table_of(page: str) -> list[str]:
    """Lines of the table that a page holds now."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().splitlines()


def write_tables() -> None:
    """Put the tables between their marks."""
    for page, make in TABLES.items():
        before, _, rest = (DOCS / page).read_text(encoding="utf-8").partition(BEGIN)
        lines = "\n".join(make())
        (DOCS / page).write_text(
            f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8"
        )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    write_tables()
