"""The command `xfr atlas`: where each channel of a recognizer's embedding lives on the face."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import atomic_path, writing_to
from xfr_plugin.cli.options import DEFAULT_OUT, DecoderOption, DeviceOption, OutOption, RecognizerOption
from xfr_plugin.cli.output import print_lines
from xfr_plugin.cli.reconstruct import DPI, open_explainer
from xfr_plugin.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from xfr_plugin.channels.regions import ChannelRegions
    from xfr_plugin.recognition import Recognizer

app = typer.Typer()


@app.command("atlas")
def atlas_command(
    out: OutOption = DEFAULT_OUT,
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
    from xfr_plugin.channels.regions import channel_regions
    from xfr_plugin.explanation.figures.channels import atlas_figure, region_figure

    model, explainer = open_explainer(recognizer, decoder, device)
    embeddings = None if faces is None else _embeddings(model, faces, people)
    matrix = channel_regions(explainer.decoder, embeddings)
    pictures = {"atlas.png": atlas_figure(explainer.decoder), "channel_regions.png": region_figure(matrix)}
    with writing_to(out):
        for name, figure in pictures.items():
            with atomic_path(out / name) as temporary:
                figure.savefig(temporary, dpi=DPI)
            print_lines(f"picture: {out / name}")
        table = out / "channel_regions.csv"
        write_channel_table(matrix, table)
    print_lines(f"table:   {table}")


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


def _embeddings(model: Recognizer, folder: Path, people: int) -> Tensor:
    """Embeddings of one face of each person, people spread evenly over the folder."""
    import numpy as np

    from xfr_plugin.training.faces_data import embed_faces, find_faces, read_faces

    found = find_faces(folder)
    if len(found) < 2:
        raise InputError(f"{folder} holds one person: the spread over people needs at least two")
    chosen = np.unique(np.linspace(0, len(found) - 1, min(people, len(found))).round().astype(int))
    names = list(found)
    first = {names[place]: found[names[place]][:1] for place in chosen}
    return embed_faces(model, read_faces(folder, first, model.input_size))
