"""`xfr align`: a crop for each photo under its name, a row for each file, and reasons where there is none."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner, Result

from xfr_plugin.cli.xfr import app
from xfr_plugin.faces import prepare_face
from xfr_plugin.faces.photo import load_photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    (place / "a person").mkdir(parents=True)
    Image.fromarray(data.astronaut()).save(place / "a person" / "one.png")
    Image.fromarray(data.astronaut()[:, ::-1]).save(place / "[b]two.JPG")
    Image.new("RGB", (200, 150), "grey").save(place / "blank.bmp")
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    (place / "notes.txt").write_text("no photo")
    return place


def align(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["align", *map(str, arguments)])


def test_crops_have_the_names_of_their_photos(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    result = align(folder, "--out", out)
    assert result.exit_code == 0, result.output
    with (out / "align.csv").open(encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert {name: row["aligned"] for name, row in rows.items()} == {
        "[b]two.JPG": "1", "a person/one.png": "1", "blank.bmp": "0", "broken.jpg": "0",
    }  # fmt: skip
    assert "no face was found" in rows["blank.bmp"]["remarks"]
    assert len(result.stdout.splitlines()) == len(rows) + 1
    assert "FAILED   blank.bmp  no face was found" in result.stdout
    crop = load_photo(out / "a person" / "one.png")
    np.testing.assert_array_equal(crop, prepare_face(data.astronaut()).image)
    assert load_photo(out / "[b]two.JPG").shape == (112, 112, 3)
    assert sorted(path.name for path in out.rglob("*.*")) == ["[b]two.JPG", "align.csv", "one.png"]


def test_sizes_of_other_recognizers(folder: Path, tmp_path: Path) -> None:
    assert align(folder / "a person", "--out", tmp_path / "x", "--size", 160, 120).exit_code == 0
    assert load_photo(tmp_path / "x" / "one.png").shape == (160, 120, 3)


def test_if_no_photo_worked_it_ends_with_2(folder: Path, tmp_path: Path) -> None:
    for photo in ("a person/one.png", "[b]two.JPG"):
        (folder / photo).unlink()
    result = align(folder, "--out", tmp_path / "faces")
    assert result.exit_code == 2
    assert "no photo" in result.stderr
    assert (tmp_path / "faces" / "align.csv").exists()


@pytest.mark.parametrize(
    ("source", "target"), [("none", "x"), ("photos/a person", "photos/a person"), (".", "x/\0")]
)
def test_folders_that_cannot_be_used(folder: Path, source: str, target: str) -> None:
    result = align(folder.parent / source, "--out", f"{folder.parent}/{target}")
    assert result.exit_code == 2
    assert result.stderr.startswith("xfr: error: ")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert "there are no photos" in align(tmp_path, "--out", tmp_path / "x").stderr


def test_crops_among_the_photos_are_no_photos_of_the_next_call(folder: Path) -> None:
    """Nor what a killed call, or another system, left there under hidden names."""
    (folder / ".one.png.3f2a.png").write_bytes(b"half")
    (folder / "._two.JPG").write_bytes(b"of another system")
    out = folder / "faces"
    first = align(folder, "--out", out)
    assert align(folder, "--out", out).stdout == first.stdout
    assert not (out / "faces").exists()
