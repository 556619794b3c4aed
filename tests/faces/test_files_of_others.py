"""Photos and lists that other programs wrote."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xfr_plugin.errors import InputError, PhotoFormatError
from xfr_plugin.faces import load_photo
from xfr_plugin.faces.lfw import read_landmarks, read_pairs, read_people

RAMP = np.tile(np.arange(0, 240, 8), (20, 1))


def encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", None])
@pytest.mark.parametrize("factor", [1, 257])
def test_32_bit_integers_of_8_and_16_bit_range(factor: int, kind: str | None) -> None:
    image = Image.fromarray((RAMP * factor).astype(np.int32))
    loaded = load_photo(image if kind is None else encode(image, kind))
    assert np.abs(loaded[..., 0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("highest", [1.0, 255.0])
def test_floats_of_either_range(highest: float) -> None:
    image = Image.fromarray((RAMP / 239 * highest).astype(np.float32))
    assert np.abs(load_photo(encode(image, "TIFF"))[..., 0] - RAMP / 239 * 255).max() <= 1


@pytest.mark.parametrize("values", [RAMP - 5, RAMP * 70_000, RAMP * -1])
def test_32_bit_integers_of_no_range_of_pixels_are_refused(values: np.ndarray) -> None:
    with pytest.raises(PhotoFormatError, match="8 or 16 bits"):
        load_photo(Image.fromarray(values.astype(np.int32)))


PAIRS = "1\nJosé_Niño\t1\t2\nJosé_Niño\t1\tÅsa_Öberg\t3\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_of_any_editor(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_bytes(PAIRS.replace("\n", end).encode(encoding))
    genuine, impostor = read_pairs(path)
    assert genuine.probe == "José_Niño/José_Niño_0001.jpg"
    assert (genuine.same, impostor.same) == (True, False)
    assert impostor.reference == "Åsa_Öberg/Åsa_Öberg_0003.jpg"
    path.write_bytes("1\nÅsa\t4\n".replace("\n", end).encode(encoding))
    assert read_people(path) == {"Åsa": 4}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "ten\n",
        "1\nA\tone\t2\nB\t1\tC\t2\n",
        "1\nA\nB\n",
        "1 2 3\n",
        '{"pairs": []}',
        "probe,reference\n",
    ],
)
def test_lists_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    for read in (read_pairs, read_people):
        with pytest.raises(InputError, match=r"list\.txt"):
            read(path)


@pytest.mark.parametrize("text", ["file\na.jpg\n", "file,right_eye_x\na.jpg,left\n", "a,b\n1,2\n", "\0\n1"])
def test_landmarks_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"labels\.csv"):
        read_landmarks(path)
