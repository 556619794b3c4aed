"""The commands `xfr reconstruct` and `xfr atlas`: pictures of what embedding channels say about the face."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from xfr_plugin.attr.reconstruction.explainer import ReconstructionExplainer
from xfr_plugin.base.files import atomic_path
from xfr_plugin.channels.regions import ChannelRegions, channel_regions
from xfr_plugin.errors import InputError, ResultError
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER
from xfr_plugin.faces.preparation import Alignment, prepare_face
from xfr_plugin.recognition import Recognizer, load_recognizer

__all__ = ["atlas_command", "reconstruct_command", "register", "write_channel_table"]

_DPI = 110

OutOption = Annotated[Path, typer.Option(help="Folder for what is written.")]
RecognizerOption = Annotated[
    str, typer.Option("--recognizer", "-r", help="Name, weight file, or https://…#sha256=…")
]
DecoderOption = Annotated[
    str | None,
    typer.Option(help="Decoder: name or file; the one that ships for the recognizer, if left out."),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")]


def register(app: typer.Typer) -> None:
    """Add both commands to the command line."""
    app.command("reconstruct")(reconstruct_command)
    app.command("atlas")(atlas_command)


def reconstruct_command(
    face: Annotated[Path, typer.Argument(metavar="FACE", help="Photo.")],
    out: OutOption = Path("xfr-out"),
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
    alignment: Annotated[str, typer.Option(help="`detect`, `aligned` or `auto`.")] = "auto",
    device: DeviceOption = "cpu",
) -> None:
    """Show which channels of a face's embedding are strong, and where on the face they live.

    The decoded face itself is written only with --reconstruction: a decoder turns face templates into likenesses.
    """
    from xfr_plugin.explanation.figures.channels import FaceChannels, face_figure

    model, explainer = _open(recognizer, decoder, device)
    image = prepare_face(face, model.input_size, alignment=_alignment(alignment)).image
    inputs = torch.from_numpy(image.transpose(2, 0, 1)[None] / 255).to(model.device, model.dtype)
    unit = model.embed(inputs)
    count = min(channels, explainer.decoder.card.embedding_dim)
    strongest = explainer.strongest_channels(unit, count)
    drawn = FaceChannels(
        image=image,
        channels=strongest.channels[0].cpu().numpy(),
        values=strongest.values[0].double().cpu().numpy(),
        maps=explainer.explain_embedding(unit[0]).double().cpu().numpy(),
        dwelling=explainer.dwelling(unit),
        reconstruction=_picture(explainer, unit) if reconstruction else None,
        title=f"{face.name}: strongest channels of {model.name}",
    )
    picture = out / "reconstruction.png"
    try:
        with atomic_path(picture) as temporary:
            face_figure(drawn).savefig(temporary, dpi=_DPI)
    except OSError as error:
        raise ResultError(f"cannot write to {out}: {error.strerror or error}") from error
    if reconstruction:
        typer.echo(
            "warning: the picture holds a likeness decoded from the embedding; treat it as personal data",
            err=True,
        )
    typer.echo(f"picture: {picture}")


def atlas_command(
    out: OutOption = Path("xfr-out"),
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    decoder: DecoderOption = None,
    faces: Annotated[
        Path | None,
        typer.Option(help="Folder of aligned faces, one subfolder a person, for the spread over people."),
    ] = None,
    people: Annotated[int, typer.Option(min=2, help="So many people of the folder at most.")] = 100,
    device: DeviceOption = "cpu",
) -> None:
    """Show where each channel of a recognizer's embedding lives, and which speak about which region."""
    from xfr_plugin.explanation.figures.channels import atlas_figure, region_figure

    model, explainer = _open(recognizer, decoder, device)
    embeddings = None if faces is None else _embeddings(model, faces, people)
    matrix = channel_regions(explainer.decoder, embeddings)
    pictures = {"atlas.png": atlas_figure(explainer.decoder), "channel_regions.png": region_figure(matrix)}
    try:
        for name, figure in pictures.items():
            with atomic_path(out / name) as temporary:
                figure.savefig(temporary, dpi=_DPI)
            typer.echo(f"picture: {out / name}")
        table = out / "channel_regions.csv"
        write_channel_table(matrix, table)
    except OSError as error:
        raise ResultError(f"cannot write to {out}: {error.strerror or error}") from error
    typer.echo(f"table:   {table}")


def write_channel_table(matrix: ChannelRegions, path: Path) -> None:
    """Write one line for each channel and region; interval and spread are empty where no people were given."""
    ends = deviation = None
    if matrix.people is not None:
        ends, deviation = matrix.intervals(), matrix.deviation()
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["channel", "region", "area", "share", "deviation", "density", "lift", "lift_low", "lift_high"]
        )
        for channel, shares in enumerate(matrix.shares):
            for place, region in enumerate(matrix.regions):
                cell = (channel, place)
                figures = [matrix.areas[place], shares[place], None if deviation is None else deviation[cell]]
                figures += [matrix.density[cell], matrix.lift[cell]]
                figures += [None, None] if ends is None else [ends[0][cell], ends[1][cell]]
                writer.writerow([channel, region, *("" if f is None else f"{f:.6g}" for f in figures)])


def _open(recognizer: str, decoder: str | None, device: str) -> tuple[Recognizer, ReconstructionExplainer]:
    model = load_recognizer(recognizer, device=device)
    return model, ReconstructionExplainer(model, decoder)


def _embeddings(model: Recognizer, folder: Path, people: int) -> torch.Tensor:
    """Embeddings of one face of each person, people spread evenly over the folder."""
    from xfr_plugin.training.faces_data import embed_faces, find_faces, read_faces

    found = find_faces(folder)
    if len(found) < 2:
        raise InputError(f"{folder} holds one person: the spread over people needs at least two")
    chosen = np.unique(np.linspace(0, len(found) - 1, min(people, len(found))).round().astype(int))
    names = list(found)
    first = {names[place]: found[names[place]][:1] for place in chosen}
    return embed_faces(model, read_faces(folder, first, model.input_size))


def _picture(explainer: ReconstructionExplainer, unit: torch.Tensor) -> NDArray[np.float64]:
    picture: NDArray[np.float64] = explainer.reconstruct(unit)[0].permute(1, 2, 0).double().cpu().numpy()
    return picture


def _alignment(value: str) -> Alignment:
    if value not in ("auto", "detect", "aligned"):
        raise InputError(f"--alignment must be auto, detect or aligned, not {value!r}")
    return value  # type: ignore[return-value]  # narrowed by the check above
