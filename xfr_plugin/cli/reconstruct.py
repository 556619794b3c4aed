"""The command `xfr reconstruct`: what the embedding of a face says about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import atomic_path, check_targets, writing_to
from xfr_plugin.cli.options import (
    DEFAULT_OUT,
    AlignmentOption,
    DecoderOption,
    DeviceOption,
    OutOption,
    RecognizerOption,
)
from xfr_plugin.cli.output import print_lines

if TYPE_CHECKING:
    from xfr_plugin.attr import ReconstructionExplainer
    from xfr_plugin.recognition import Recognizer

app = typer.Typer()
DPI = 110


@app.command("reconstruct")
def reconstruct_command(
    face: Annotated[Path, typer.Argument(metavar="FACE", help="Photo.")],
    out: OutOption = DEFAULT_OUT,
    reconstruction: Annotated[
        bool,
        typer.Option(
            "--reconstruction",
            help="Include the face as decoded from its embedding: a likeness of the person, personal data.",
        ),
    ] = False,
    channels: Annotated[int, typer.Option(min=1, max=24, help="How many of the strongest channels.")] = 8,
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    decoder: DecoderOption = None,
    alignment: AlignmentOption = "auto",
    device: DeviceOption = "cpu",
) -> None:
    """Show which channels of a face's embedding are strong, and where on the face they live.

    The decoded face itself is written only with --reconstruction: a decoder turns face templates into likenesses.
    """
    picture = out / "reconstruction.png"
    check_targets((picture,), (face, recognizer, decoder or ""))
    import torch

    from xfr_plugin.explanation.figures.channels import FaceChannels, face_figure
    from xfr_plugin.faces import prepare_face

    model, explainer = open_explainer(recognizer, decoder, device)
    image = prepare_face(face, model.input_size, alignment=alignment).image
    inputs = torch.from_numpy(image.transpose(2, 0, 1)[None] / 255).to(model.device, model.dtype)
    unit = model.embed(inputs)
    count = min(channels, explainer.decoder.card.embedding_dim)
    strongest = explainer.strongest_channels(unit, count)
    likeness = (
        explainer.reconstruct(unit)[0].permute(1, 2, 0).double().cpu().numpy() if reconstruction else None
    )
    drawn = FaceChannels(
        image=image,
        channels=strongest.channels[0].cpu().numpy(),
        values=strongest.values[0].double().cpu().numpy(),
        maps=explainer.explain_embedding(unit[0]).double().cpu().numpy(),
        dwelling=explainer.dwelling(unit),
        reconstruction=likeness,
        title=f"{face.name}: strongest channels of {model.name}",
    )
    with writing_to(out), atomic_path(picture) as temporary:
        face_figure(drawn).savefig(temporary, dpi=DPI)
    if reconstruction:
        typer.echo(
            "warning: the picture holds a likeness decoded from the embedding; treat it as personal data",
            err=True,
        )
    print_lines(f"picture: {picture}")


def open_explainer(
    recognizer: str, decoder: str | None, device: str
) -> tuple[Recognizer, ReconstructionExplainer]:
    """Load a recognizer and a decoder for it, its own if none is named."""
    from xfr_plugin.attr import ReconstructionExplainer
    from xfr_plugin.recognition import load_recognizer

    model = load_recognizer(recognizer, device=device)
    return model, ReconstructionExplainer(model, decoder)
