"""Loading photos: every mode becomes upright RGB, and what is not a photo gets a clear error."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xfr_plugin.errors import InputError, PhotoError, PhotoFormatError, PhotoNotFoundError, PhotoTooLargeError
from xfr_plugin.faces import load_photo

RAMP = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_path_bytes_pil_and_array_give_the_same(tmp_path: Path) -> None:
    rgb = np.stack([RAMP, RAMP.T[:20, :1].repeat(30, 1), RAMP], axis=-1)
    image = Image.fromarray(rgb)
    path = tmp_path / "photo.png"
    image.save(path)
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), image, rgb, rgb / 255):
        np.testing.assert_array_equal(load_photo(source), rgb)


@pytest.mark.parametrize(
    "mode", ["L", "1", "P", "PA", "LA", "La", "RGBA", "RGBa", "CMYK", "YCbCr", "I;16", "HSV", "LAB"]
)
def test_any_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(RAMP)
    if mode == "I;16":
        image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    else:
        image = grey.convert("RGB").convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert(mode)
    loaded = load_photo(image)
    assert loaded.shape == (20, 30, 3)
    assert loaded.dtype == np.uint8
    if mode not in ("1", "LAB", "P", "PA"):
        assert np.abs(loaded.mean(axis=2) - RAMP).max() <= 4


def test_sixteen_bit_png_keeps_its_brightness() -> None:
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    loaded = load_photo(encode(deep, "PNG"))
    assert np.abs(loaded[..., 0].astype(int) - RAMP).max() <= 1


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK")
    loaded = load_photo(encode(red, "JPEG"))
    assert np.abs(loaded.mean(axis=(0, 1)) - (200, 30, 30)).max() < 6


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (load_photo(encode(clear, "PNG")) == 255).all()


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (30, 20))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to see it upright
    loaded = load_photo(encode(image, "PNG", exif=exif))
    assert loaded.shape == (30, 20, 3)
    assert loaded[0, -1].tolist() == [255, 255, 255]


def test_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    loaded = load_photo(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert loaded[0, 0, 0] > 200
    assert loaded[0, 0, 2] < 50


def test_photo_beyond_the_pixel_limit_is_refused_before_decoding() -> None:
    data = encode(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(PhotoTooLargeError, match=r"pixels.*limit"):
        load_photo(data)
    with pytest.raises(PhotoTooLargeError):
        load_photo(np.zeros((30, 30, 3), np.uint8), max_pixels=800)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"just text, renamed to .jpg",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        b"GIF89a",
        b"%PDF-1.7 ...",
        b"PK\x03\x04",
    ],
)
def test_what_is_not_an_image_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(PhotoFormatError, match=r"photo\.jpg"):
        load_photo(path)
    with pytest.raises(PhotoFormatError):
        load_photo(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_image_is_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with pytest.raises(PhotoFormatError, match="damaged or truncated"):
        load_photo(data[: len(data) // 2])


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PhotoNotFoundError, match="no photo at"):
        load_photo(tmp_path / "none.jpg")
    with pytest.raises(FileNotFoundError):
        load_photo(str(tmp_path / "none.jpg"))
    with pytest.raises(PhotoError, match="folder"):
        load_photo(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int32),
        np.full((4, 4, 3), 2.0),
        np.full((4, 4, 3), np.nan),
        np.zeros(5, np.uint8),
    ],
)
def test_arrays_of_wrong_shape_type_or_range_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError):
        load_photo(array)


def test_other_types_are_refused() -> None:
    with pytest.raises(InputError, match="not int"):
        load_photo(3)
    for given, advice in (
        (torch.rand(3, 20, 20), r"permute\(1, 2, 0\)"),
        (np.zeros((3, 20, 20), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.full((20, 20, 3), 200.0), "by 255"),
    ):
        with pytest.raises(InputError, match=advice):
            load_photo(given)
