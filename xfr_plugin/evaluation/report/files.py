"""Files of an evaluation: every number as CSV (and Parquet), tables in Markdown, and plots."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xfr_plugin.base.files import atomic_path, write_text
from xfr_plugin.errors import ResultError
from xfr_plugin.evaluation.report.judges_page import judges_page
from xfr_plugin.evaluation.report.plots import draw_plots
from xfr_plugin.evaluation.report.tables import markdown
from xfr_plugin.evaluation.results import Failure, Record, Results
from xfr_plugin.evaluation.summary import SummaryRow

__all__ = ["write_results"]


def write_results(results: Results, folder: Path) -> list[Path]:
    """Write `results.md`, plots, `results.csv`, `summary.csv`, `pairs.csv` and `failures.csv`.

    Each is written whole or not at all; `judges.md` too, if there are several judges, and `results.parquet`, where
    pyarrow is installed (extra `evaluate`).

    Returns:
        The paths, the Markdown first.

    Raises:
        ResultError: the folder cannot be written to.
    """
    try:
        plots = draw_plots(results, folder)
        names = [path.name for path in plots]
        page = judges_page(results, names)
        pages = {"results.md": markdown(results, names, page is not None)}
        if page is not None:
            pages["judges.md"] = page
        for name, text in pages.items():
            write_text(folder / name, text)
        tables = [
            _write_csv(folder / "results.csv", Record._fields, results.records),
            _write_csv(folder / "summary.csv", SummaryRow._fields, results.summary()),
            _write_csv(folder / "failures.csv", Failure._fields, results.failures),
            _write_pairs(folder / "pairs.csv", results),
        ]
        parquet = _write_parquet(folder / "results.parquet", results.records)
    except OSError as error:
        raise ResultError(f"cannot write results to {folder}: {error}") from error
    return [*(folder / name for name in pages), *plots, *tables, *parquet]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)
    return path


def _write_pairs(path: Path, results: Results) -> Path:
    columns = list(dict.fromkeys(name for facts in results.facts.values() for name in facts))
    rows = [[pair, *(facts.get(name) for name in columns)] for pair, facts in results.facts.items()]
    return _write_csv(path, ["pair", *columns], rows)


def _write_parquet(path: Path, records: Sequence[Record]) -> list[Path]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return []
    columns = {name: [getattr(record, name) for record in records] for name in Record._fields}
    types = {"at": pa.float64(), "value": pa.float64()}
    table = pa.table(
        {name: pa.array(column, types.get(name, pa.string())) for name, column in columns.items()}
    )
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
    return [path]


def _cell(value: Any) -> Any:
    """None and NaN as an empty cell; truth as 1 and 0."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return json.dumps(int(value)) if isinstance(value, bool) else value
