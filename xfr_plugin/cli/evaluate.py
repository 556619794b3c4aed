"""The command `xfr evaluate`: which explanation can be believed, on faces of yours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xfr_plugin.errors import InputError
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER
from xfr_plugin.recognition import load_recognizer

if TYPE_CHECKING:
    from xfr_plugin.evaluation.run import Step

__all__ = ["evaluate_command", "register"]

_STOPPED = 130
_EVERY = 50


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        "evaluate",
        epilog="Example: `xfr evaluate --methods quick --protocols planted --faces lfw112 --pairs "
        "pairsDevTest.txt --limit 70 --out judged`. The same command goes on where a killed one stopped.",
    )(evaluate_command)


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
        str, typer.Option("--protocols", "-p", help="Names with commas, or `all`; see docs/protocols.md.")
    ] = "planted",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="Option of a method, as method.name=value; repeatable."),
    ] = None,
    recognizer: Annotated[
        str, typer.Option("--recognizer", "-r", help="Name, weight file, or https://…#sha256=…")
    ] = DEFAULT_RECOGNIZER,
    architecture: Annotated[str | None, typer.Option(help="Architecture of a weight file.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Decide at this cosine.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="At most so many pairs; single-region plantings a game, where they are drawn."
        ),
    ] = None,
    half: Annotated[
        str, typer.Option(help="People, by a hash of their names: `select`, `report` or `all`.")
    ] = "all",
    strengths: Annotated[
        str, typer.Option(help="Weaker strengths to plant too, with commas; empty for none.")
    ] = "0.5",
    region_pairs: Annotated[bool, typer.Option(help="Plant pairs of regions too.")] = True,
    controls: Annotated[bool, typer.Option(help="Plant controls too.")] = True,
    regions: Annotated[
        str, typer.Option(help="Named regions: face `mesh` beside the faces, `template`, or `auto`.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")] = "cpu",
    floors: Annotated[bool, typer.Option(help="Judge the floors too.")] = True,
    keep_maps: Annotated[
        bool, typer.Option(help="Keep maps on disk, for agreement, average maps and later protocols.")
    ] = True,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed.")] = False,
    only_report: Annotated[
        bool, typer.Option("--only-report", help="Compute nothing; write tables and plots of what is there.")
    ] = False,
) -> None:
    """Judge explanation methods by protocols on pairs of faces: tables, plots, every number."""
    from xfr_plugin.evaluation import evaluate  # what it builds on is slow to import
    from xfr_plugin.evaluation.plan import PlantedPlan

    split = {"select": "dev", "report": "test"}.get(half, half)  # their old names
    if split not in ("dev", "test", "all"):
        raise InputError(f"--half must be dev, test or all, not {half!r}")
    if regions not in ("auto", "mesh", "template"):
        raise InputError(f"--regions must be auto, mesh or template, not {regions!r}")
    plan = PlantedPlan(
        count=limit or PlantedPlan().count,
        pairs=region_pairs,
        strengths=_numbers(strengths),
        controls=controls,
        seed=seed,
    )
    with _progress(not only_report) as progress:
        results = evaluate(
            faces,
            pairs,
            out,
            methods=_choice(methods, quick=None),
            protocols=_choice(protocols),
            options=_options(option or []),
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            threshold=threshold,
            plan=plan,
            limit=limit,
            split=split,  # type: ignore[arg-type]  # narrowed by the check above
            regions=regions,  # type: ignore[arg-type]  # as above
            seed=seed,
            floors=floors,
            keep_maps=keep_maps,
            retry_failed=retry_failed,
            only_report=only_report,
            progress=progress,
        )
    console = Console()
    with Console(stderr=True).status("tables and plots …"):
        written = results.save(out)
    for path in written:
        console.print(str(path), highlight=False, soft_wrap=True)
    if results.failures:
        console.print(f"{len(results.failures)} judgements could not be made: see {out / 'failures.csv'}")


@contextmanager
def _progress(is_shown: bool) -> Iterator[Callable[[Step], None] | None]:
    """A bar where somebody looks, a line now and then elsewhere; an interrupted run says how to go on."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not is_shown or not console.is_terminal,
    )
    task = bar.add_task("starting", total=None, left="")

    def show(step: Step) -> None:
        left = "" if step.remaining is None else f"about {duration(step.remaining)} left"
        bar.update(task, description=step.method, completed=step.done, total=step.total, left=left)
        if not console.is_terminal and (step.done % _EVERY == 0 or step.done == step.total):
            console.print(f"{step.done} of {step.total} {left}", highlight=False)

    try:
        with bar:
            yield show if is_shown else None
    except KeyboardInterrupt as interrupt:
        console.print(
            "stopped; nothing is lost: the same command goes on from here, --only-report shows what is there"
        )
        raise typer.Exit(_STOPPED) from interrupt


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _choice(text: str, **named: Any) -> Any:
    """Names with commas, `all`, or a word that stands for something."""
    if text in named:
        return named[text]
    return "all" if text == "all" else [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"--strengths takes numbers with commas between them, got {text!r}") from error
    if not all(0 < number < 1 for number in numbers):
        raise InputError(f"strengths lie between 0 and 1, got {text!r}: full strength is planted anyway")
    return numbers


def _options(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """Read method.name=value; values are JSON where they can be, text otherwise."""
    options: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        path, separator, text = pair.partition("=")
        method, dot, name = path.partition(".")
        if not separator or not dot:
            raise InputError(f"--option takes method.name=value, got {pair!r}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        options.setdefault(method, {})[name] = value
    return options
