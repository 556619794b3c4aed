"""The command `xfr evaluate`: which explanation can be believed, on faces of yours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.cli.options import (
    ArchitectureOption,
    DeviceOption,
    MethodOptions,
    RecognizerOption,
    SeedOption,
    ThresholdOption,
    names,
    options_by_method,
)
from xfr_plugin.cli.output import print_lines, working
from xfr_plugin.cli.progress import progress_bar
from xfr_plugin.errors import InputError

app = typer.Typer()

Split: TypeAlias = Literal["dev", "test", "all"]

_STOPPED = "stopped; nothing is lost: the same command goes on from here, --only-report shows what is there"


@app.command(
    "evaluate",
    epilog="Example: `xfr evaluate --methods quick --protocols planted --faces lfw112 --pairs "
    "pairsDevTest.txt --limit 70 --out judged`. The same command goes on where a killed one stopped.",
)
def evaluate_command(
    faces: Annotated[Path, typer.Option(help="Folder of aligned faces, a folder for each person.")],
    pairs: Annotated[
        Path,
        typer.Option(
            help="LFW's pairs or people, a CSV (probe, reference, genuine), or a manifest of plantings (JSON)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: records, tables, plots.")] = Path(
        "xfr-evaluation"
    ),
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="Names with commas, `quick` or `all`; see `xfr methods`.")
    ] = "quick",
    protocols: Annotated[
        str, typer.Option("--protocols", "-p", help="Names with commas, or `all`.")
    ] = "planted",
    option: MethodOptions = None,
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="At most so many pairs; single-region plantings a game, where they are drawn."
        ),
    ] = None,
    split: Annotated[
        Split, typer.Option(help="People, by a hash of their names: `dev` to choose on, `test` to report on.")
    ] = "all",
    strengths: Annotated[
        str, typer.Option(help="Weaker strengths to plant too, with commas; empty for none.")
    ] = "0.5",
    region_pairs: Annotated[bool, typer.Option(help="Plant pairs of regions too.")] = True,
    controls: Annotated[bool, typer.Option(help="Plant controls too.")] = True,
    regions: Annotated[
        Literal["auto", "mesh", "template"],
        typer.Option(help="Named regions: face `mesh` beside the faces, `template`, or `auto`."),
    ] = "auto",
    photographs: Annotated[
        Path | None,
        typer.Option(help="Folder of photographs as they were taken, of the same people, to draw on."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    chance: Annotated[bool, typer.Option(help="Judge chance baselines too.")] = True,
    keep_maps: Annotated[
        bool, typer.Option(help="Keep maps on disk, for agreement, average maps and later protocols.")
    ] = True,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed.")] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes on this machine, or a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Each has a copy of the model; one, or all CPUs of a cluster, if left out."),
    ] = None,
    only_report: Annotated[
        bool, typer.Option("--only-report", help="Compute nothing; write tables and plots of what is there.")
    ] = False,
) -> None:
    """Judge explanation methods by protocols on pairs of faces: tables, plots, every number."""
    from xfr_plugin.evaluation import evaluate
    from xfr_plugin.evaluation.plan import PlantedPlan
    from xfr_plugin.recognition import load_recognizer

    plan = PlantedPlan(
        count=limit or PlantedPlan().count,
        pairs=region_pairs,
        strengths=_numbers(strengths),
        controls=controls,
        seed=seed,
    )
    with progress_bar(not only_report, _STOPPED) as show:
        results = evaluate(
            faces,
            pairs,
            out,
            methods=None if methods == "quick" else names(methods),
            protocols=names(protocols),
            options=options_by_method(option),
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            threshold=threshold,
            plan=plan,
            limit=limit,
            split=split,
            regions=regions,
            photographs=photographs,
            seed=seed,
            chance=chance,
            keep_maps=keep_maps,
            retry_failed=retry_failed,
            only_report=only_report,
            engine=engine,
            workers=workers,
            progress=lambda step: show(*step),
        )
    with working("tables and plots"):
        written = results.save(out)
    print_lines(*map(str, written))
    if results.failures:
        print_lines(f"{len(results.failures)} judgements could not be made: see {out / 'failures.csv'}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"--strengths takes numbers with commas between them, got {text!r}") from error
    if not all(0 < number < 1 for number in numbers):
        raise InputError(f"strengths lie between 0 and 1, got {text!r}: full strength is planted anyway")
    return numbers
