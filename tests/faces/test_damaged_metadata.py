"""Metadata decides the orientation of a photo and never refuses it; no reader's error escapes as itself."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from xfr_plugin.errors import PhotoError
from xfr_plugin.faces import load_photo

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(40) * 4, np.arange(56) * 2).astype(np.uint8)[..., None].repeat(3, 2)

SHORT, ASCII, RATIONAL, UNDEFINED, SRATIONAL, FLOAT = 3, 2, 5, 7, 10, 11


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]


def exif(*entries: bytes, after: bytes = b"", next_ifd: int = 0) -> bytes:
    """A little-endian EXIF block with one directory; `after` lies at offset 8 + 2 + 12·n + 4."""
    body = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", next_ifd)
    return b"II*\0" + struct.pack("<I", 8) + body + after


def orientation(value: int) -> bytes:
    return entry(0x0112, SHORT, 1, struct.pack("<HH", value, 0))


BLOCKS = {
    "signed rational -1/0": exif(
        orientation(6), entry(0x9203, SRATIONAL, 1, struct.pack("<I", 38)), after=struct.pack("<ii", -1, 0)
    ),
    "rational 0/0": exif(
        orientation(6), entry(0x011A, RATIONAL, 1, struct.pack("<I", 38)), after=struct.pack("<II", 0, 0)
    ),
    "float NaN": exif(orientation(6), entry(0x9999, FLOAT, 1, struct.pack("<f", float("nan")))),
    "offset outside": exif(orientation(6), entry(0x010F, ASCII, 4000, struct.pack("<I", 1 << 30))),
    "huge count": exif(orientation(6), entry(0x927C, UNDEFINED, (1 << 32) - 1, b"\xff\xff\xff\x7f")),
    "a directory that is its own next": exif(orientation(6), next_ifd=8),
    "a GPS directory of nowhere": exif(orientation(6), entry(0x8825, 4, 1, struct.pack("<I", 1 << 28))),
}
"""Each says that the photo lies on its side, beside something that is damaged."""

ODD_ORIENTATIONS = {
    "text": exif(entry(0x0112, ASCII, 2, b"6\0")),
    "nine": exif(orientation(9)),
    "zero": exif(orientation(0)),
    "three values": exif(entry(0x0112, SHORT, 3, struct.pack("<I", 1 << 20))),
    "a float that is none": exif(entry(0x0112, FLOAT, 1, struct.pack("<f", 6.5))),
    "an unknown type": exif(entry(0x0112, 99, 1, b"\6\0\0\0")),
    "no directory": b"II*\0\xff\xff\xff\x7f",
    "not EXIF": b"hello",
    "nothing": b"",
}


def encode(kind: str, block: bytes, pixels: NDArray[np.uint8] = PIXELS) -> bytes:
    buffer = io.BytesIO()
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    Image.fromarray(pixels).save(
        buffer, kind, exif=b"Exif\0\0" + block if kind == "JPEG" else block, **options
    )
    return buffer.getvalue()


KINDS = ["JPEG", "PNG", "WEBP"] if features.check("webp") else ["JPEG", "PNG"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", BLOCKS)
def test_damage_beside_the_orientation(block: str, kind: str) -> None:
    loaded = load_photo(encode(kind, BLOCKS[block]))
    assert loaded.shape == (30, 20, 3), "it is still turned"
    if kind == "PNG":
        np.testing.assert_array_equal(loaded, np.rot90(PIXELS, -1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", ODD_ORIENTATIONS)
def test_orientations_that_make_no_sense(block: str, kind: str) -> None:
    assert load_photo(encode(kind, ODD_ORIENTATIONS[block])).shape == (20, 30, 3)


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation(value: int) -> None:
    transpositions = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: np.rot90(PIXELS, 2).transpose(1, 0, 2),
        8: np.rot90(PIXELS),
    }
    np.testing.assert_array_equal(load_photo(encode("PNG", exif(orientation(value)))), transpositions[value])


def test_tiff_with_rationals_of_nothing() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "TIFF", tiffinfo={0x0112: 6}, dpi=(Fraction(72), Fraction(72)))
    data = buffer.getvalue().replace(struct.pack("<II", 72, 1), struct.pack("<II", 72, 0))
    np.testing.assert_array_equal(load_photo(data), np.rot90(PIXELS, -1))


def chunk(name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    found = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", found)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"a\0b", checksum=0),
        chunk(b"zTXt", b"k\0\0not compressed"),
        chunk(b"iTXt", b"k\0\1\0\0\0bad"),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"no profile")),
        chunk(b"iCCP", b"profile without end"),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b""),
        chunk(b"cHRM", b"1234"),
        chunk(b"eXIf", b"MM", checksum=1),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 << 20))),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_chunks_of_png(extra: bytes, place: str) -> None:
    plain = encode("PNG", b"")
    start = plain.index(b"IDAT") - 4 if place == "before" else plain.index(b"IEND") - 4
    np.testing.assert_array_equal(load_photo(plain[:start] + extra + plain[start:]), PIXELS)


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe1\x00\x10Exif\0\0MM\0*\0\0\0",
        b"\xff\xe2\x00\x14ICC_PROFILE\0\x09\x01xx",
        b"\xff\xed\x00\x1cPhotoshop 3.0\x008BIM\x03\xed\0\0\0",
        b"\xff\xfe\x00\x04\xff\xfe",
        b"\xff\xe2\x00\x0cMPF\0II*\0\xff\xff",
        b"\xff\xe1\x00\x2chttp://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xff",
    ],
)
def test_segments_of_jpeg(segment: bytes) -> None:
    plain = encode("JPEG", b"", SMOOTH)
    np.testing.assert_array_equal(load_photo(plain[:2] + segment + plain[2:]), load_photo(plain))


@pytest.mark.parametrize("kind", [*KINDS, "TIFF", "GIF", "BMP", "PPM"])
def test_bytes_changed_anywhere_give_a_photo_or_an_error_of_ours(kind: str) -> None:
    """A few hundred seeded changes: single bytes, and stretches of them."""
    buffer = io.BytesIO()
    options = {} if kind in ("GIF", "BMP", "PPM") else {"exif": exif(orientation(6))}
    Image.fromarray(SMOOTH).save(buffer, kind, **options)
    rng, whole = np.random.default_rng(1), np.frombuffer(buffer.getvalue(), np.uint8)
    for _ in range(150):
        data = whole.copy()
        at, length = rng.integers(0, min(len(data), 700)), rng.choice([1, 1, 4, 40])
        data[at : at + length] = rng.integers(0, 256, len(data[at : at + length]))
        with contextlib.suppress(PhotoError):
            assert load_photo(data.tobytes(), max_pixels=1_000_000).shape[2:] == (3,)


@pytest.mark.parametrize("place", range(0, 1800, 90))
def test_damaged_pixels_are_not_taken_for_black(place: int) -> None:
    """A decoder that gives up after its first rows has not read a photo, though nothing is left of the file."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[data.index(b"IDAT") + 4 + place] ^= 0x55
    with pytest.raises(PhotoError):
        load_photo(bytes(data))
