"""Pictures and commands of the reconstruction: what they show, and that no likeness is written unasked."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_decoder import make_decoder
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from xfr_plugin.attr import ReconstructionExplainer
from xfr_plugin.channels import ChannelRegions, channel_regions
from xfr_plugin.cli import atlas, reconstruct
from xfr_plugin.cli.atlas import write_channel_table
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.figures.channels import (
    FaceChannels,
    atlas_figure,
    face_figure,
    ordered_channels,
    region_figure,
)
from xfr_plugin.faces import REGION_NAMES
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import Decoder


@pytest.fixture
def decoder(recognizer: Recognizer) -> Decoder:
    return make_decoder(recognizer).requires_grad_(False)


@pytest.fixture
def matrix(decoder: Decoder) -> ChannelRegions:
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return channel_regions(decoder, nn.functional.normalize(values, dim=1))


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def face_channels(recognizer: Recognizer, decoder: Decoder, **changes: Any) -> FaceChannels:
    explainer = ReconstructionExplainer(recognizer, decoder)
    unit = nn.functional.normalize(torch.arange(1.0, 7, dtype=torch.float64), dim=0)
    strongest = explainer.strongest_channels(unit, 3)
    fields: dict[str, Any] = {
        "image": np.full((24, 20, 3), 128, dtype=np.uint8),
        "channels": strongest.channels[0].numpy(),
        "values": strongest.values[0].numpy(),
        "maps": explainer.explain_embedding(unit).numpy(),
        "dwelling": explainer.dwelling(unit),
    }
    return FaceChannels(**(fields | changes))


def test_face_picture_names_channels_and_regions(recognizer: Recognizer, decoder: Decoder) -> None:
    face = face_channels(recognizer, decoder)
    written = texts(face_figure(face))
    for channel in face.channels:
        assert f"channel {channel}\n" in written
    assert "left eye" in written
    assert "its reconstruction" not in written
    likeness = np.zeros((24, 20, 3))
    assert "its reconstruction" in texts(
        face_figure(face_channels(recognizer, decoder, reconstruction=likeness))
    )
    with pytest.raises(InputError, match="at least one"):
        face_figure(face_channels(recognizer, decoder, channels=np.array([], dtype=np.int64)))


def test_maps_of_a_face_share_one_scale(recognizer: Recognizer, decoder: Decoder) -> None:
    figure = face_figure(face_channels(recognizer, decoder))
    scales: dict[str, set[tuple[float, float]]] = {}
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_images")):
        for image in axes.get_images():
            if image.get_array().ndim == 2:
                scales.setdefault(image.get_cmap().name, set()).add(image.get_clim())
    assert set(scales) == {"magma", "PRGn"}
    assert all(len(found) == 1 for found in scales.values())


def test_atlas_shows_every_channel(decoder: Decoder) -> None:
    figure = atlas_figure(decoder, columns=4)
    written = texts(figure).splitlines()
    assert all(str(channel) in written for channel in range(6))
    assert "mean face" in written


def test_region_picture_orders_channels_and_pales_what_may_be_chance(
    decoder: Decoder, matrix: ChannelRegions
) -> None:
    order = ordered_channels(matrix)
    assert sorted(order) == list(range(6))
    peaks = matrix.lift[order].argmax(axis=1)
    assert (np.diff(peaks) >= 0).all()
    figure = region_figure(matrix)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(channel) for channel in order]
    low, high = matrix.intervals()
    pale = ((low <= 1) & (high >= 1))[order].T[matrix.areas > 0]  # the template has no ears
    np.testing.assert_array_equal(axes.get_images()[0].get_alpha() < 1, pale)
    assert "5 people" in texts(figure)
    assert "No people were given" in texts(region_figure(channel_regions(decoder)))


def test_table_holds_every_channel_and_region(
    decoder: Decoder, matrix: ChannelRegions, tmp_path: Path
) -> None:
    for source, name in ((matrix, "people.csv"), (channel_regions(decoder), "atlas.csv")):
        write_channel_table(source, tmp_path / name)
        with (tmp_path / name).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 6 * len(REGION_NAMES)
        nose = REGION_NAMES.index("nose")
        row = rows[3 * len(REGION_NAMES) + nose]
        assert (row["channel"], row["region"]) == ("3", "nose")
        assert float(row["lift"]) == pytest.approx(source.lift[3, nose], rel=1e-5)
        assert (row["lift_low"] == "") == (source.people is None)


@pytest.fixture
def workplace(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three aligned faces, and the small recognizer with its decoder behind every name."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        noise = rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "faces" / name / "1.png")
    small = recognizer.float()
    explainer = ReconstructionExplainer(small, make_decoder(small).float())
    for command in (atlas, reconstruct):
        monkeypatch.setattr(command, "open_explainer", lambda *_: (small, explainer))
    return tmp_path


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_a_likeness_is_written_only_when_asked_for(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[FaceChannels] = []

    def draw(face: FaceChannels) -> Figure:
        drawn.append(face)
        return face_figure(face)

    monkeypatch.setattr("xfr_plugin.explanation.figures.channels.face_figure", draw)
    face, out = str(workplace / "faces" / "a" / "1.png"), str(workplace / "out")
    stdout, stderr = run("reconstruct", face, "--out", out, "--alignment", "aligned")
    assert drawn[0].reconstruction is None
    assert "likeness" not in stderr
    assert "reconstruction.png" in stdout
    assert (workplace / "out" / "reconstruction.png").stat().st_size > 10_000
    _, stderr = run("reconstruct", face, "--out", out, "--alignment", "aligned", "--reconstruction")
    assert drawn[1].reconstruction is not None
    assert "likeness" in stderr
    assert len(drawn[1].channels) == 6  # no more than there are


def test_atlas_writes_pictures_and_table(workplace: Path) -> None:
    for options in ((), ("--faces", str(workplace / "faces"))):
        out = workplace / f"out{len(options)}"
        run("atlas", "--out", str(out), *options)
        assert {path.name for path in out.iterdir()} == {
            "atlas.png",
            "channel_regions.png",
            "channel_regions.csv",
        }


def test_bad_input_is_one_line(workplace: Path) -> None:
    face = str(workplace / "faces" / "a" / "1.png")
    assert "--alignment" in run("reconstruct", face, "--alignment", "maybe", code=2)[1]
    assert "no folder" in run("atlas", "--faces", str(workplace / "none"), code=2)[1]
    one = str(workplace / "faces" / "a")
    assert "at least two" in run("atlas", "--faces", one, "--out", str(workplace), code=2)[1]
    (workplace / "file").write_text("")
    assert "cannot write" in run("atlas", "--out", str(workplace / "file"), code=2)[1]
