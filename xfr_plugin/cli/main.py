"""The command `xfr`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from typer.core import TyperGroup

from xfr_plugin._version import __version__
from xfr_plugin.attr.registry import AUTO, METHODS
from xfr_plugin.cli.bilrp import register as register_bilrp
from xfr_plugin.cli.evaluate import register as register_evaluate
from xfr_plugin.cli.reconstruction import register as register_reconstruction
from xfr_plugin.cli.remote import (
    ServerOption,
    TokenOption,
    ask,
    print_answer,
    refuse_local_options,
    save_answer,
)
from xfr_plugin.cli.serving import register as register_serving
from xfr_plugin.cli.tables import (
    comparison_table,
    faithfulness_table,
    method_card,
    methods_table,
    region_table,
)
from xfr_plugin.cli.train import app as train_app
from xfr_plugin.errors import FaceWarning, InputError, XfrError
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER, explain, verify
from xfr_plugin.explanation.comparison import QUICK_METHODS, MethodChoice, compare
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces.preparation import Alignment
from xfr_plugin.recognition import list_recognizers, load_recognizer, zoo_card
from xfr_plugin.recognition.download import download_weights
from xfr_plugin.service.answers import Decision

__all__ = ["app", "main"]

EXIT_MATCH, EXIT_NON_MATCH, EXIT_BAD_INPUT = 0, 1, 2

_EPILOG = "Exit codes: 0 success (verify: match), 1 verify: no match, 2 bad input, with one line on stderr."


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    """Turn our errors into one line on stderr and exit code 2, and our warnings into lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FaceWarning)
        try:
            yield
        except XfrError as error:
            typer.echo(f"xfr: error: {error}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from error
        finally:
            for warning in caught:
                typer.echo(f"xfr: warning: {warning.message}", err=True)


class _Commands(TyperGroup):
    """A group whose commands, and theirs, report our errors as one line."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own context is click's
        with _errors_as_lines():
            return super().invoke(ctx)


app = typer.Typer(
    name="xfr",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Explain face verification: which regions argue for a match, which against, and how much.",
    epilog=_EPILOG,
)
app.add_typer(train_app, name="train")
register_reconstruction(app)
register_bilrp(app)
register_evaluate(app)
register_serving(app)

PhotoA = Annotated[Path, typer.Argument(metavar="A", help="Probe photo.")]
PhotoB = Annotated[Path, typer.Argument(metavar="B", help="Reference photo.")]
RecognizerOption = Annotated[
    str,
    typer.Option(
        "--recognizer", "-r", help="Name (see `xfr recognizers`), weight file, or https://…#sha256=…"
    ),
]
ArchitectureOption = Annotated[
    str | None, typer.Option(help="Architecture of a weight file; found from its keys if left out.")
]
ThresholdOption = Annotated[float | None, typer.Option(help="Decide at this cosine.")]
FmrOption = Annotated[
    float | None, typer.Option(help="Decide at the threshold calibrated for this false match rate.")
]
AlignmentOption = Annotated[
    str, typer.Option(help="`detect` a face, take photos as `aligned` crops, or `auto` by their size.")
]
FaceAOption = Annotated[int, typer.Option(help="Which face of A: 0 is the largest.")]
FaceBOption = Annotated[int, typer.Option(help="Which face of B: 0 is the largest.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")]
OutOption = Annotated[Path, typer.Option(help="Folder for the picture and the JSON document.")]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Also test whether the score follows what the maps point at.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command("verify", epilog=f"Example: `xfr verify a.jpg b.jpg --fmr 0.001 && echo same`. {_EPILOG}")
def verify_command(
    a: PhotoA,
    b: PhotoB,
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
    alignment: AlignmentOption = "auto",
    face_a: FaceAOption = 0,
    face_b: FaceBOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    server: ServerOption = None,
    token_file: TokenOption = None,
) -> None:
    """Decide whether two photos show the same person. Exits with 0 for a match, 1 for none."""
    if server is not None:
        _refuse_local(recognizer, architecture, device, face_a or face_b)
        answer = ask(
            server, token_file, (a, b), False, threshold=threshold, fmr=fmr, alignment=_alignment(alignment)
        )
        if as_json:
            typer.echo(answer.model_dump_json(indent=1))
        else:
            _print_decision(Console(), answer.decision)
            print_answer(Console(), answer)
        raise typer.Exit(EXIT_MATCH if answer.decision.match else EXIT_NON_MATCH)
    decision = verify(
        a,
        b,
        recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
        threshold=threshold,
        fmr=fmr,
        alignment=_alignment(alignment),
        faces=(face_a, face_b),
    )
    if as_json:
        typer.echo(decision.model_dump_json(indent=1))
    else:
        _print_decision(Console(), decision)
    raise typer.Exit(EXIT_MATCH if decision.match else EXIT_NON_MATCH)


@app.command("explain", epilog=f"Example: `xfr explain a.jpg b.jpg --method xssab --out result`. {_EPILOG}")
def explain_command(
    a: PhotoA,
    b: PhotoB,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="Attribution method, see `xfr methods`; `auto`: what is best known for the recognizer.",
        ),
    ] = AUTO,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="Option of the method, as name=value; repeatable."),
    ] = None,
    out: OutOption = Path("xfr-out"),
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
    alignment: AlignmentOption = "auto",
    face_a: FaceAOption = 0,
    face_b: FaceBOption = 0,
    device: DeviceOption = "cpu",
    check: CheckOption = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show which regions of two faces argue for a match, and which against."""
    if server is not None:
        _refuse_local(recognizer, architecture, device, face_a or face_b or option)
        asked = {"threshold": threshold, "fmr": fmr, "alignment": _alignment(alignment), "method": method}
        returns = ["regions", "words", "overlay", *(["faithfulness"] if check else [])]
        answer = ask(server, token_file, (a, b), True, returns=returns, **asked)
        files = save_answer(answer, out)
        if as_json:
            typer.echo(answer.model_dump_json(indent=1))
            return
        _print_decision(Console(), answer.decision)
        print_answer(Console(), answer)
        typer.echo(f"written:  {', '.join(map(str, files))}")
        return
    with _working("explaining"):
        explanation = explain(
            a,
            b,
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            method=method,
            options=_parse_options(option or []),
            threshold=threshold,
            fmr=fmr,
            alignment=_alignment(alignment),
            faces=(face_a, face_b),
            check=check,
        )
        picture, document = explanation.save(out)
    if as_json:
        typer.echo(document.read_text(encoding="utf-8"))
        return
    console = Console()
    _print_decision(console, explanation.verification)
    console.print(region_table(explanation))
    if explanation.faithfulness is not None:
        console.print(faithfulness_table(explanation.faithfulness))
    _print_files(console, explanation.notes, picture, document)


@app.command(
    "compare", epilog=f"Example: `xfr compare a.jpg b.jpg --methods xssab,fggb --out result`. {_EPILOG}"
)
def compare_command(
    a: PhotoA,
    b: PhotoB,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "-m",
            help=f"Names with commas, or `all`; `{','.join(QUICK_METHODS)}` if left out. See `xfr methods`.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="Option of a method, as method.name=value; repeatable."),
    ] = None,
    out: OutOption = Path("xfr-out"),
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
    alignment: AlignmentOption = "auto",
    face_a: FaceAOption = 0,
    face_b: FaceBOption = 0,
    device: DeviceOption = "cpu",
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Explain one pair by many methods, side by side: a grid picture and a table."""
    with Console(stderr=True).status("finding the faces …") as status:
        comparison = compare(
            a,
            b,
            methods=_method_names(methods),
            options=_options_by_method(option or []),
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            threshold=threshold,
            fmr=fmr,
            alignment=_alignment(alignment),
            faces=(face_a, face_b),
            progress=lambda name, number, count: status.update(f"{name} ({number} of {count}) …"),
            check=check,
        )
        picture, document = comparison.save(out)
    if as_json:
        typer.echo(document.read_text(encoding="utf-8"))
        return
    console = Console()
    _print_decision(console, comparison.verification)
    console.print(comparison_table(comparison))
    console.print(
        "agrees: median rank correlation with the other methods. Most for and against: the region with the most "
        "net evidence, in % of all evidence in the face, probe | reference; large regions hold much. Methods that "
        "agree can be wrong together.",
        highlight=False,
    )
    _print_files(console, comparison.notes, picture, document)


@app.command("methods")
def methods_command(as_json: JsonOption = False) -> None:
    """List the attribution methods and their options."""
    if as_json:
        typer.echo(json.dumps([method_card(method) for method in METHODS.values()], indent=1))
    else:
        Console().print(methods_table(METHODS.values()))


@app.command("recognizers")
def recognizers_command() -> None:
    """List the recognizers that have a name."""
    table = Table(
        Column("name", no_wrap=True), "architecture", "input", "threshold (EER)", "licence", "source"
    )
    for name in list_recognizers():
        card = zoo_card(name)
        threshold = f"{card.calibration.threshold:.3f}" if card.calibration else "not calibrated"
        size = "×".join(map(str, card.input_size))
        table.add_row(
            name, card.architecture, size, threshold, card.provenance.licence, card.provenance.source
        )
    Console().print(table)


@app.command("download")
def download_command(name: Annotated[str, typer.Argument(help="Name of a recognizer.")]) -> None:
    """Download the public weights of a recognizer once, and verify their checksum."""
    weights = zoo_card(name).weights
    if weights is None or weights.url is None:
        raise InputError(f"the weights of {name} have no public address")
    typer.echo(str(download_weights(weights.url, weights.sha256, weights.file, progress=True)))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"xfr-plugin {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _working(what: str) -> Iterator[None]:
    """Show that work goes on, where somebody looks."""
    with Console(stderr=True).status(f"{what} …"):
        yield


def _alignment(value: str) -> Alignment:
    if value not in ("auto", "detect", "aligned"):
        raise InputError(f"--alignment must be auto, detect or aligned, not {value!r}")
    return value  # type: ignore[return-value]  # narrowed by the check above


def _parse_options(pairs: list[str]) -> dict[str, Any]:
    """Read name=value pairs; values are JSON where they can be, text otherwise."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--option takes name=value, got {pair!r}")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _method_names(text: str | None) -> MethodChoice:
    """Read names with commas between them."""
    if text is None or text == "all":
        return None if text is None else "all"
    return [name.strip() for name in text.split(",") if name.strip()]


def _options_by_method(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """Read method.name=value pairs."""
    options: dict[str, dict[str, Any]] = {}
    for name, value in _parse_options(pairs).items():
        method, separator, option = name.partition(".")
        if not separator:
            raise InputError(f"--option takes method.name=value, got {name!r}")
        options.setdefault(method, {})[option] = value
    return options


def _print_files(console: Console, notes: tuple[str, ...], picture: Path, document: Path) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    console.print(f"picture:  {picture}\ndocument: {document}", highlight=False, soft_wrap=True)


def _refuse_local(recognizer: str, architecture: str | None, device: str, others: object) -> None:
    """With `--server`, what is chosen here would not be what answers."""
    refuse_local_options(
        recognizer=recognizer != DEFAULT_RECOGNIZER,
        architecture=architecture,
        device=device != "cpu",
        **{"face-a, --face-b or --option": others},
    )


def _print_decision(console: Console, decision: Verification | Decision) -> None:
    verdict = "[bold blue]MATCH[/]" if decision.match else "[bold red]NO MATCH[/]"
    sign = "≥" if decision.match else "<"
    console.print(
        f"{verdict}  score {decision.score:.4f} {sign} threshold {decision.threshold:.4f} "
        f"({decision.threshold_source}), margin {decision.margin:+.4f}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
