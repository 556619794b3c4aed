"""The runs behind docs/results.md: planted evidence on many pairs, on all methods, and the other protocols.

    python benchmarks/results.py run --part main --recognizer xfr_compact128 --out runs
    python benchmarks/results.py page --out runs --docs docs

`run` can be killed and goes on where it was; `page` copies the tables and plots of all runs that are there into the
documentation, and changes nothing else. People: LFW's test people, the half that nothing was chosen on.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from xfr_plugin.attr import METHODS
from xfr_plugin.evaluation import evaluate
from xfr_plugin.evaluation.plan import PlantedPlan
from xfr_plugin.evaluation.protocols import PROTOCOLS
from xfr_plugin.evaluation.run import Step
from xfr_plugin.recognition import load_recognizer

DATA = Path(os.environ.get("XFR_DATA", "../shared/data")) / "faces"
RECOGNIZERS = ("xfr_compact128", "mobilefacenet_ms1m")

QUICK = (
    "amortised", "counterfactual", "reconstruction", "xssab", "lrp", "ebp", "gradcam", "gradcam_plus_plus",
    "deeplift", "input_x_gradient",
)  # fmt: skip
"""Methods of some dozens of passes, and `counterfactual`, of 150."""

SLOW = ("integrated_gradients", "corrrise", "exchange", "replacement")
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


def page(options: argparse.Namespace) -> None:
    """Copy tables and plots into the documentation."""
    for part in PARTS:
        for name in RECOGNIZERS:
            folder = folder_of(options.out, part, name)
            if (folder / "results.md").is_file():
                copy_page(folder, options.docs, f"{part}_{name}")


def copy_page(folder: Path, docs: Path, name: str) -> None:
    """Copy one run's page into `results/`, its plots into `pictures/`."""
    text = (folder / "results.md").read_text(encoding="utf-8")
    for plot in sorted(folder.glob("*.png")):
        target = f"results_{name}_{plot.name}"
        if f"({plot.name})" in text:
            shutil.copyfile(plot, docs / "pictures" / target)
            text = text.replace(f"({plot.name})", f"(../pictures/{target})")
    (docs / "results").mkdir(exist_ok=True)
    (docs / "results" / f"{name}.md").write_text(text, encoding="utf-8")


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
