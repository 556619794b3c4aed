"""Every attribution class through Captum's test configurations and tools; the table of docs/captum.md.

    python benchmarks/conformance.py            # print the table
    python benchmarks/conformance.py --write    # put it into docs/captum.md

The checks are those of tests/helpers/captum_checks.py and tests/helpers/captum_channel_checks.py, which the tests
run too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from captum import __version__ as captum_version

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import helpers.captum_channel_checks as channels  # noqa: E402  # found by the line above
import helpers.captum_checks as pairs  # noqa: E402  # as above
from helpers.captum_toys import pair_configs  # noqa: E402  # as above

PAGE = ROOT / "docs" / "captum.md"
BEGIN, END = "<!-- benchmarks/conformance.py writes from here -->", "<!-- to here -->"


def conformance_table(
    rows: Mapping[str, tuple[str, Any]],
    checks: Mapping[str, Callable[[Any], str | None]],
    run: Callable[[Any, Callable[[Any], str | None]], tuple[bool | None, str]],
) -> tuple[list[str], int]:
    """Markdown table of class × check with its footnotes, and the number of failures."""
    lines = [
        f"| {' | '.join(['method', 'class', *(str(number) for number in range(1, len(checks) + 1))])} |",
        f"|---|---|{':-:|' * len(checks)}",
    ]
    notes: dict[str, str] = {}
    failures = 0
    for name, (title, subject) in rows.items():
        cells = []
        for check in checks.values():
            passed, why = run(subject, check)
            failures += passed is False
            mark = {True: "✓", False: "**fails**", None: "–"}[passed]
            cells.append(f"{mark} {notes.setdefault(why, letter(len(notes)))}" if why else mark)
            print(f"\r{name}: {len(cells)} of {len(checks)} ", end="", file=sys.stderr, flush=True)
        lines.append(f"| {' | '.join([f'`{name}`', f'`{title}`', *cells])} |")
    print(file=sys.stderr)
    return [*lines, "", *(f"{mark}: {why}.  " for why, mark in notes.items())], failures


def letter(number: int) -> str:
    return chr(ord("a") + number)


def legend(checks: Mapping[str, Callable[[Any], str | None]]) -> list[str]:
    docs = ((check.__doc__ or "").strip().splitlines()[0] for check in checks.values())
    return [
        f"{number}. **{title}.** {text}"
        for number, (title, text) in enumerate(zip(checks, docs, strict=True), start=1)
    ]


def declined() -> Iterable[str]:
    """Captum's configurations that are not run, by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in pair_configs()[1].items():
        by_reason.setdefault(reason, []).append(f"`{name}`")
    for reason, names in by_reason.items():
        shown = ", ".join(names) if len(names) <= 6 else f"{len(names)} configurations"
        yield f"- {shown}: {reason}."


def page_section() -> tuple[str, int]:
    """The generated part of the page, and the number of failures."""
    subjects = {name: (s.cls.__name__, s) for name, s in pairs.subjects().items()}
    table, failed = conformance_table(subjects, pairs.CHECKS, pairs.outcome)
    by_channel = {name: (name, s) for name, s in channels.subjects().items()}
    channel_table, also_failed = conformance_table(by_channel, channels.CHANNEL_CHECKS, pairs.outcome)
    devices = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
    count = len(pair_configs()[0])
    lines = [
        f"Captum {captum_version}, torch {torch.__version__}, {devices}. ✓ passes; – does not apply; letters: below.",
        "",
        *legend(pairs.CHECKS),
        "",
        *table,
        "",
        "Classes whose target is a channel of one face:",
        "",
        *legend(channels.CHANNEL_CHECKS),
        "",
        *channel_table,
        "",
        f"{count} of Captum's configurations are run, for every class. Not run, and why:",
        "",
        *declined(),
    ]
    return "\n".join(lines), failed + also_failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/captum.md")
    arguments = parser.parse_args()
    section, failures = page_section()
    if arguments.write:
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{section}\n\n{END}{after}", encoding="utf-8")
    else:
        print(section)
    sys.exit(f"{failures} checks failed" if failures else 0)


if __name__ == "__main__":
    main()
