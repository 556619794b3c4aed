"""The command `xfr verify`: whether two photos show the same person."""

from __future__ import annotations

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.cli.codes import EXIT_CODES, EXIT_MATCH, EXIT_NON_MATCH, Ended
from xfr_plugin.cli.options import (
    AlignmentOption,
    ArchitectureOption,
    DeviceOption,
    FaceAOption,
    FaceBOption,
    FmrOption,
    JsonOption,
    PhotoA,
    PhotoB,
    RecognizerOption,
    ServerOption,
    ThresholdOption,
    TokenOption,
)
from xfr_plugin.cli.output import print_decision, print_document

app = typer.Typer()


@app.command("verify", epilog=f"Example: `xfr verify a.jpg b.jpg --fmr 0.001 && echo same`. {EXIT_CODES}")
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
        from xfr_plugin.cli.remote import ask, print_answer, refuse_local_options

        refuse_local_options(recognizer, architecture, device, face_a or face_b)
        asked = {"threshold": threshold, "fmr": fmr, "alignment": alignment}
        answer = ask(server, token_file, (a, b), False, **asked)
        if as_json:
            print_document(answer.model_dump_json(indent=1))
        else:
            print_decision(answer.decision)
            print_answer(answer)
        raise Ended(EXIT_MATCH if answer.decision.match else EXIT_NON_MATCH)
    from xfr_plugin import load_recognizer, verify

    decision = verify(
        a,
        b,
        recognizer=load_recognizer(recognizer, architecture=architecture, device=device),
        threshold=threshold,
        fmr=fmr,
        alignment=alignment,
        faces=(face_a, face_b),
    )
    if as_json:
        print_document(decision.model_dump_json(indent=1))
    else:
        print_decision(decision)
    raise Ended(EXIT_MATCH if decision.match else EXIT_NON_MATCH)
