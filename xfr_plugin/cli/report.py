"""The command `xfr report`: a page about a pair that can be read, printed and checked."""

from __future__ import annotations

import shlex
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import check_targets
from xfr_plugin.cli.codes import EXIT_CODES
from xfr_plugin.cli.options import (
    AlignmentOption,
    ArchitectureOption,
    DeviceOption,
    FaceAOption,
    FaceBOption,
    FmrOption,
    PhotoA,
    PhotoB,
    RecognizerOption,
    ThresholdOption,
)
from xfr_plugin.cli.output import print_decision, print_lines, working
from xfr_plugin.errors import InputError

app = typer.Typer()


class Matches(str, Enum):
    """What tells which regions matched."""

    auto = "auto"
    shapley = "shapley"
    bilrp = "bilrp"


@app.command("report", epilog=f"Example: `xfr report a.jpg b.jpg --out report.html --pdf`. {EXIT_CODES}")
def report_command(
    a: PhotoA,
    b: PhotoB,
    out: Annotated[Path, typer.Option(help="The page, one self-contained file.")] = Path("report.html"),
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write it as a PDF, beside it.")] = False,
    method: Annotated[
        str, typer.Option("--method", "-m", help="Attribution method, see `xfr methods`.")
    ] = "auto",
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
    alignment: AlignmentOption = "auto",
    face_a: FaceAOption = 0,
    face_b: FaceBOption = 0,
    device: DeviceOption = "cpu",
    matches: Annotated[
        Matches,
        typer.Option(help="What tells which part goes with which; `auto` for Shapley values if quick."),
    ] = Matches.auto,
    reconstructions: Annotated[
        bool,
        typer.Option("--reconstructions", help="Also show likenesses from the embeddings: personal data."),
    ] = False,
) -> None:
    """Write a report on a pair: decision, reasons, check, other methods, checksums, and how it was made."""
    if pdf and out.suffix == ".pdf":
        raise InputError(f"--out is the page, and the PDF goes beside it: {out.with_suffix('.html')}")
    check_targets((out, out.with_name(f"{out.stem}.pdf")) if pdf else (out,), (a, b, recognizer))
    from xfr_plugin import load_recognizer
    from xfr_plugin.explanation.report import build_report

    with working("writing the report"):
        report = build_report(
            a,
            b,
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            method=method,
            threshold=threshold,
            fmr=fmr,
            alignment=alignment,
            faces=(face_a, face_b),
            matches=matches.value,
            reconstructions=reconstructions,
        )
    given = {
        "--method": report.explanation.method,  # `auto` may be another one elsewhere
        "--matches": report.matches_by,
        "--recognizer": recognizer,
        "--architecture": architecture,
        "--threshold": threshold,
        "--fmr": fmr,
        "--alignment": alignment,
        "--face-a": face_a or None,
        "--face-b": face_b or None,
    }
    words = ["xfr", "report", str(a), str(b), "--out", str(out)]
    words += [part for name, value in given.items() if value is not None for part in (name, str(value))]
    words += [word for word, wanted in (("--reconstructions", reconstructions), ("--pdf", pdf)) if wanted]
    files = replace(report, command=shlex.join(words)).save(out, pdf=pdf)
    print_decision(report.explanation.verification)
    print_lines(*(f"written:  {file}" for file in files))
