"""The commands `xfr batch` and `xfr summary`: many pairs, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.text import counted
from xfr_plugin.cli.codes import EXIT_CODES
from xfr_plugin.cli.options import (
    AlignmentOption,
    ArchitectureOption,
    CheckOption,
    DeviceOption,
    FmrOption,
    JsonOption,
    MethodOptions,
    RecognizerOption,
    ThresholdOption,
    names,
    options_by_method,
)
from xfr_plugin.cli.output import print_document, print_lines, terminal, working
from xfr_plugin.cli.progress import progress_bar
from xfr_plugin.errors import InputError

if TYPE_CHECKING:
    from xfr_plugin.bulk import BatchResults

app = typer.Typer()

_STOPPED = "stopped; what is done is on disk: the same command goes on from here"
_SHOWN_FAILURES = 5


@app.command(
    "batch",
    epilog='Example: `xfr batch pairs.csv --out run --select "near threshold" --check`. The same command goes on '
    f"where a killed one stopped. {EXIT_CODES} 2 too, if no pair worked.",
)
def batch_command(
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help="CSV, Parquet or JSON lines with `probe` and `reference` (and `genuine`); LFW's pairs; a folder, "
            "against itself; with --gallery, the probes.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("xfr-batch"),
    gallery: Annotated[
        Path | None, typer.Option(help="Folder of photos, with each of which every probe is paired.")
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder that names in PAIRS start from; that of the file, if left out."),
    ] = None,
    people: Annotated[
        bool, typer.Option("--people", help="Folders are named by the person whose photos they hold.")
    ] = False,
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="Names with commas, `auto`, or `none` to decide only.")
    ] = "auto",
    option: MethodOptions = None,
    select: Annotated[
        str,
        typer.Option(
            help="Pairs to explain: `all`, `near threshold`, `within .05`, `errors`, `false matches`, `top 5` of "
            "each probe, `random 100` …; several with `and`. All pairs are decided."
        ),
    ] = "all",
    pictures: Annotated[
        str,
        typer.Option(
            help="Of the explained pairs, those that get picture and document, in words of --select."
        ),
    ] = "none",
    check: CheckOption = False,
    maps: Annotated[bool, typer.Option(help="Keep maps, of which pictures are made.")] = True,
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
    alignment: AlignmentOption = "auto",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes on this machine, or a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Each has a copy of the model; one a core, if left out.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed.")] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Decide many pairs, explain those that are asked for: every number in Parquet files."""
    from xfr_plugin import batch, load_recognizer

    with progress_bar(True, _STOPPED) as show:
        results = batch(
            pairs,
            out,
            gallery=gallery,
            photos=photos,
            people=people,
            methods=_methods(methods),
            options=options_by_method(option),
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            threshold=threshold,
            fmr=fmr,
            alignment=alignment,
            select=select,
            check=check,
            maps=maps,
            pictures=pictures,
            engine=engine,
            workers=workers,
            retry_failed=retry_failed,
            progress=lambda step: show(*step),
        )
    manifest = results.manifest
    done = [f"{count:,} explained by {name}" for name, count in manifest.explained.items()]
    if pictures.strip() != "none":
        done.append(counted(len(results.pictures()), "picture"))
    print_lines(f"{', '.join([counted(manifest.pairs, 'pair'), *done])}: {out}")
    failures = results.failures()
    _print_failures(results, failures)
    if sum(failure["method"] is None for failure in failures) == manifest.pairs:
        raise InputError(f"no pair of {pairs} could be decided: see the reasons above")
    if any(failure["method"] for failure in failures) and not any(manifest.explained.values()):
        raise InputError(f"no pair of {pairs} could be explained: see the reasons above")


@app.command("summary", epilog=f"Example: `xfr summary run --group camera`. {EXIT_CODES}")
def summary_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run of `xfr batch`.")],
    group: Annotated[
        str | None, typer.Option(help="Column of the list of pairs, by which they are grouped too.")
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="Telling pairs of each kind.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; `summary` in that of the run, if left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which regions argue in the pairs of a run: a table, plots, and a page of telling pairs."""
    from xfr_plugin.bulk import summarise

    with working("summing up"):
        summary = summarise(folder, group=group, count=count)
        if not summary.regions:
            raise InputError(f"nothing is explained in {folder}: run `xfr batch` with --methods")
        written = summary.save(out)
    if as_json:
        rows = {"regions": summary.regions, "telling": summary.telling}
        document = {
            "decided": summary.decided.model_dump(),
            "verdicts": summary.verdicts,
            **{name: [row.model_dump() for row in some] for name, some in rows.items()},
        }
        print_document(json.dumps(document, indent=1))
        return
    from xfr_plugin.bulk.words import LEGEND, decided_in_words, explained_in_words
    from xfr_plugin.cli.tables import summary_tables

    print_lines(*decided_in_words(summary.decided, summary.results.manifest), LEGEND)
    for method in summary.verdicts:
        print_lines(*explained_in_words(summary, method))
        terminal().print(*summary_tables([row for row in summary.regions if row.method == method]))
    print_lines(*map(str, written))


def _print_failures(results: BatchResults, failures: Sequence[Mapping[str, Any]]) -> None:
    """Photos, each once however many pairs it is in, and explanations that failed."""
    explanations = [failure for failure in failures if failure["method"]]
    photos = [f"{name}: {why}" for name, why in results.faceless().items()]
    pairs = [f"pair {one['pair']} by {one['method']}: {one['error']}" for one in explanations]
    for group in (photos, pairs):
        print_lines(*(f"failed: {line}" for line in group[:_SHOWN_FAILURES]))
    if failures:
        print_lines(
            f"{counted(len(photos), 'photo')} failed, and so {counted(len(failures) - len(pairs), 'pair')}; "
            f"{counted(len(pairs), 'explanation')}: rows with an `error`"
        )


def _methods(text: str) -> list[str] | None:
    if text == "auto":
        return None
    found = [] if text == "none" else names(text)
    if found == "all":
        raise InputError("name the methods: all of them, on many pairs, take very long")
    return list(found)
