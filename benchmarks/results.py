"""The runs behind docs/results.md: planted evidence on many pairs, on all methods, and the other protocols.

    python benchmarks/results.py run --part main --recognizer xfr_compact128 --out runs
    python benchmarks/results.py page --out runs --docs docs

`run` can be killed and goes on where it was. `page` writes one page a recognizer into the documentation: tables and
plots of its `main` run, and below them a short table of each other run that is there. People: LFW's test people, the
half that nothing was chosen on.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from xfr_plugin.attr import METHODS
from xfr_plugin.evaluation import evaluate
from xfr_plugin.evaluation.engine import Step
from xfr_plugin.evaluation.plan import PlantedPlan
from xfr_plugin.evaluation.protocols import PROTOCOLS
from xfr_plugin.recognition import load_recognizer

DATA = Path(os.environ.get("XFR_DATA", "../shared/data")) / "faces"
RECOGNIZERS = ("xfr_compact128", "mobilefacenet_ms1m")

QUICK = (
    "leave_one_out", "amortised", "reconstruction", "xssab", "lrp", "ebp", "gradcam", "gradcam_plus_plus",
    "deeplift", "input_x_gradient",
)  # fmt: skip
"""Methods of some dozens of passes, and `leave_one_out`, of 100."""

SLOW = ("integrated_gradients", "corrrise")
"""The best known of those that need hundreds."""


@dataclass(frozen=True)
class Part:
    """One run.

    Attributes:
        methods: to be judged.
        protocols: by which.
        count: plantings of single regions a game, or pairs.
        plan: what else is planted.
    """

    methods: tuple[str, ...]
    protocols: tuple[str, ...]
    count: int
    pairs: bool = False
    strengths: tuple[float, ...] = ()
    controls: bool = False


PARTS = {
    "main": Part(QUICK, ("planted",), 300, controls=True),
    "slow": Part((*QUICK, *SLOW), ("planted",), 60),
    "all": Part(tuple(METHODS), ("planted",), 12, pairs=True, strengths=(0.5,), controls=True),
    "protocols": Part((*QUICK, "corrrise"), tuple(PROTOCOLS), 20),
}


def run(options: argparse.Namespace) -> None:
    """Do one run, or the rest of it."""
    part = PARTS[options.part]
    folder = folder_of(options.out, options.part, options.recognizer)
    count = options.count or part.count
    listed = "peopleDevTest.txt" if "planted" in part.protocols else "pairsDevTest.txt"
    results = evaluate(
        DATA / "lfw112",
        DATA / listed,
        folder,
        methods=options.methods.split(",") if options.methods else part.methods,
        protocols=part.protocols,
        recognizer=load_recognizer(options.recognizer),
        plan=PlantedPlan(
            count=count,
            pairs=part.pairs,
            strengths=part.strengths,
            controls=part.controls and not options.no_controls,
            seed=options.seed,
        ),
        limit=count,
        split="test",
        seed=options.seed,
        progress=shown,
    )
    results.save(folder)


@dataclass(frozen=True)
class Cells:
    """A column of a folded table, as it stands in a run's `results.md`.

    Attributes:
        heading: in the folded table.
        section: title of the part of the page that the table stands in.
        variant: title of the part of that part; none, if empty.
        column: heading there, without its arrow.
    """

    heading: str
    section: str
    variant: str
    column: str


GAMES = ("Dissimilar", "Similar")
POINTING = (
    *(
        Cells(f"{game.lower()}: {column}", "Planted evidence", f"{game} game, single regions", column)
        for game in GAMES
        for column in ("AUC", "top-1")
    ),
    Cells("seconds a face", "Time, memory, agreement", "", "seconds a face"),
)
MASKING = tuple(
    Cells(
        f"{protocol.lower()}: {game.lower()}, {fill}",
        protocol,
        f"{game.lower()}, probe, {fill}",
        "margin_auc",
    )
    for protocol in ("Deletion", "Insertion")
    for game in reversed(GAMES)
    for fill in ("black", "blur")
)
OTHERS = (
    *(Cells(f"hiding: {game.lower()}", "Hiding game", game.lower(), "iou_at_area") for game in GAMES),
    Cells("infidelity", "Infidelity", "", "alignment"),
    *(Cells(f"patches: {kind}", "Patch replacement", f"{kind} patches", "found") for kind in ("impostor", "mate")),
    Cells("randomisation", "Parameter randomisation", "shuffle", "remaining"),
    Cells("sensitivity", "Sensitivity", "", "sensitivity_max"),
    Cells("symmetry", "Symmetry", "", "identical_negative"),
)  # fmt: skip

FOLDED = {
    "slow": ("Methods of hundreds of passes", [("", POINTING)]),
    "all": ("All methods", [("", POINTING)]),
    "protocols": (
        "Other protocols",
        [
            ("Deletion (lower is better) and insertion (higher is better), by `margin_auc`:", MASKING),
            (
                "Hiding game by `iou_at_area` ↑, infidelity by `alignment` ↑, patch replacement by `found` ↑, "
                "parameter randomisation by `remaining` ↓, sensitivity by `sensitivity_max` ↓, symmetry by "
                "`identical_negative` ↓. Stability, a few pairs a change, is left out:",
                OTHERS,
            ),
        ],
    ),
}
"""Part → its title, and the tables that a recognizer's page has of it."""


def page(options: argparse.Namespace) -> None:
    """Write the page of each recognizer whose main run is there."""
    for name in RECOGNIZERS:
        main_run = folder_of(options.out, "main", name)
        if not (main_run / "results.md").is_file():
            continue
        text = copied(main_run, options.docs, name)
        for part in FOLDED:
            document = folder_of(options.out, part, name) / "results.md"
            if document.is_file():
                text += folded(part, document.read_text(encoding="utf-8"))
        (options.docs / "results").mkdir(exist_ok=True)
        (options.docs / "results" / f"{name}.md").write_text(text, encoding="utf-8")


def copied(folder: Path, docs: Path, name: str) -> str:
    """A run's page, its plots being copied into `pictures/`."""
    text = (folder / "results.md").read_text(encoding="utf-8")
    for plot in sorted(folder.glob("*.png")):
        target = f"results_{name}_{plot.name}"
        if f"({plot.name})" in text:
            shutil.copyfile(plot, docs / "pictures" / target)
            text = text.replace(f"({plot.name})", f"(../pictures/{target})")
    head = f"# Results: `{name}`\n\nIn plain words: [results.md](../results.md). Written by `benchmarks/results.py`."
    return text.replace("# Evaluation", head, 1)


def folded(part: str, text: str) -> str:
    """Short tables of a run, from its page."""
    title, tables = FOLDED[part]
    plain, planted = re.search(r"(\d+ pairs \(\d+ genuine\)), (\d+ planted pairs)", text).groups()
    lines = [f"\n## {title}\n"]
    if part == "protocols":
        lines.append(f"A run of its own: {plain}, {planted}.")
    else:
        counts = [section(text, "Planted evidence", f"{game} game, single regions").strip() for game in GAMES]
        told = [f"{game} game: {lead.splitlines()[0]}" for game, lead in zip(GAMES, counts, strict=True)]
        lines.append(f"A run of its own: {planted}. {' '.join(told)}")
    for note, columns in tables:
        lines += ["", note] if note else []
        lines += ["", f"| method | {' | '.join(cells.heading for cells in columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        found = [column_of(text, cells) for cells in columns]
        lines += [f"| {label} | {' | '.join(values[label] for values in found)} |" for label in found[0]]
    return "\n".join(lines) + "\n"


def section(text: str, title: str, variant: str) -> str:
    """What stands under a title, and under a title of the next level within."""
    part = text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return part.split(f"\n### {variant}\n", 1)[1].split("\n### ", 1)[0] if variant else part


def column_of(text: str, cells: Cells) -> dict[str, str]:
    """A column by method, of the first table of its part of the page."""
    table = section(text, cells.section, cells.variant).split("| method |", 1)[1].split("\n\n", 1)[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()
    ]
    place = [heading.split(" ")[0] if heading[-1] in "↑↓" else heading for heading in head].index(
        cells.column
    )
    return {row[0]: row[place + 1] for row in rows}


def folder_of(out: Path, part: str, recognizer: str) -> Path:
    """Folder of a run."""
    return out / f"{part}_{recognizer}"


def shown(step: Step) -> None:
    """A line now and then."""
    if step.done % 100 == 0 or step.done == step.total:
        rest = "" if step.remaining is None else f", about {step.remaining / 60:.0f} min left"
        print(f"{step.done} of {step.total}{rest}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("--part", choices=PARTS, default="main")
    one.add_argument("--recognizer", choices=RECOGNIZERS, default=RECOGNIZERS[0])
    one.add_argument("--methods", help="names with commas, instead of the part's")
    one.add_argument("--count", type=int, help="plantings a game, or pairs, instead of the part's")
    one.add_argument("--no-controls", action="store_true", help="plant no controls, to save a quarter")
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(do=run)
    two = commands.add_parser("page")
    two.add_argument("--docs", type=Path, default=Path("docs"))
    two.set_defaults(do=page)
    for command in (one, two):
        command.add_argument("--out", type=Path, default=Path("runs/results"))
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
