"""The command `xfr explain`: which regions of two faces argue for a match, and which against."""

from __future__ import annotations

from typing import Annotated

import typer

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
    OptionOfMethod,
    OutOption,
    PhotoA,
    PhotoB,
    RecognizerOption,
    ServerOption,
    ThresholdOption,
    TokenOption,
    read_options,
)
from xfr_plugin.cli.output import (
    print_decision,
    print_document,
    print_files,
    print_lines,
    terminal,
    working,
)

app = typer.Typer()


@app.command(
    "explain", epilog=f"Example: `xfr explain a.jpg b.jpg --method xssab --out result`. {EXIT_CODES}"
)
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
    ] = "auto",
    option: OptionOfMethod = None,
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
    server: ServerOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show which regions of two faces argue for a match, and which against."""
    written = (
        ("answer.json", "probe.png", "reference.png") if server else ("explanation.png", "explanation.json")
    )
    check_targets((out / name for name in written), (a, b, recognizer))
    if server is not None:
        from xfr_plugin.cli.remote import ask, print_answer, refuse_local_options, save_answer

        refuse_local_options(recognizer, architecture, device, face_a or face_b or option)
        asked = {"threshold": threshold, "fmr": fmr, "alignment": alignment, "method": method}
        returns = ["regions", "words", "overlay", *(["faithfulness"] if check else [])]
        answer = ask(server, token_file, (a, b), True, returns=returns, **asked)
        files = save_answer(answer, out)
        if as_json:
            print_document(answer.model_dump_json(indent=1))
            return
        print_decision(answer.decision)
        print_answer(answer)
        print_lines(f"written:  {', '.join(map(str, files))}")
        return
    from xfr_plugin import explain, load_recognizer
    from xfr_plugin.cli.tables import faithfulness_table, region_table

    with working("explaining"):
        explanation = explain(
            a,
            b,
            recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
            method=method,
            options=read_options(option),
            threshold=threshold,
            fmr=fmr,
            alignment=alignment,
            faces=(face_a, face_b),
            check=check,
        )
        picture, document = explanation.save(out)
    if as_json:
        print_document(document.read_text(encoding="utf-8"))
        return
    console = terminal()
    print_decision(explanation.verification)
    console.print(region_table(explanation))
    if explanation.faithfulness is not None:
        console.print(faithfulness_table(explanation.faithfulness))
    print_lines(*explanation.words())
    print_files((), picture, document)
