"""The command `xfr compare`: one pair explained by many methods."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import check_targets
from xfr_plugin.cli.codes import EXIT_CODES
from xfr_plugin.cli.options import (
    DEFAULT_OUT,
    AlignmentOption,
    ArchitectureOption,
    CheckOption,
    DeviceOption,
    FaceAOption,
    FaceBOption,
    FmrOption,
    JsonOption,
    MethodOptions,
    OutOption,
    PhotoA,
    PhotoB,
    RecognizerOption,
    ThresholdOption,
    names,
    options_by_method,
)
from xfr_plugin.cli.output import print_decision, print_document, print_files, terminal, working

app = typer.Typer()


@app.command(
    "compare", epilog=f"Example: `xfr compare a.jpg b.jpg --methods xssab,fggb --out result`. {EXIT_CODES}"
)
def compare_command(
    a: PhotoA,
    b: PhotoB,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "-m",
            help="Names with commas, or `all`; one or two of each family if left out. See `xfr methods`.",
        ),
    ] = None,
    option: MethodOptions = None,
    out: OutOption = DEFAULT_OUT,
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
    check_targets((out / "comparison.png", out / "comparison.json"), (a, b, recognizer))
    from xfr_plugin import compare, load_recognizer
    from xfr_plugin.cli.tables import comparison_table

    with working("finding the faces") as status:
        comparison = compare(
            a,
            b,
            methods=None if methods is None else names(methods),
            options=options_by_method(option),
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            threshold=threshold,
            fmr=fmr,
            alignment=alignment,
            faces=(face_a, face_b),
            progress=lambda name, number, count: status.update(Text(f"{name} ({number} of {count}) …")),
            check=check,
        )
        picture, document = comparison.save(out)
    if as_json:
        print_document(document.read_text(encoding="utf-8"))
        return
    console = terminal()
    print_decision(comparison.verification)
    console.print(comparison_table(comparison))
    console.print(
        "agrees: median rank correlation with the other methods. Most for and against: the region with the most "
        "net evidence, in % of all evidence in the face, probe | reference; large regions hold much. Methods that "
        "agree can be wrong together."
    )
    print_files(comparison.notes, picture, document)
