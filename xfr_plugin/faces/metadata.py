"""What photos carry beside their pixels: of it only the orientation is used, and no damage to it refuses a photo."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from PIL import Image

__all__ = ["orientation", "upright", "with_orientation_alone", "without_metadata"]

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_WEBP_METADATA = {b"EXIF": 0x08, b"XMP ": 0x04, b"ICCP": 0x20}
"""Chunks, and the flags of the file's head that say that they follow."""
_ORIENTED = (
    *(b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"),  # JPEG
    *(
        b"eXIf",
        b"iTXtXML:com.adobe.xmp\0",
        b"zTXtRaw profile type exif\0",
        b"tEXtRaw profile type exif\0",
    ),  # PNG
    *(b"EXIF", b"XMP "),  # WebP
)
"""How parts begin that may hold an orientation."""
_LARGEST_ORIENTED = 64 << 10
"""As much as a segment of a JPEG holds."""


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1…8; 1 where there is none, or none that makes sense."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        if isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
        if isinstance(value, bytes):
            value = int.from_bytes(value.strip(b"\0"), "big")
        return int(value) if value in _TURNS else 1
    except Exception:  # readers of EXIF and XMP raise many types on damaged data
        return 1


def upright(image: Image.Image) -> Image.Image:
    """Turn a photo as its orientation says."""
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def without_metadata(data: bytes) -> bytes:
    """A JPEG, PNG or WebP with its pixels alone, as far as its structure can be followed; others as they are."""
    return _kept(data, lambda part: part.startswith(b"eXIf"))


def with_orientation_alone(data: bytes) -> bytes:
    """The same with what may say the orientation: one part of each kind, and none that is large.

    Readers unpack and parse all metadata, which takes seconds for what fits into few bytes.
    """
    found: set[bytes] = set()

    def keep(part: bytes) -> bool:
        kind = next((start for start in _ORIENTED if part.startswith(start)), None)
        if kind is None or kind in found or len(part) > _LARGEST_ORIENTED:
            return False
        found.add(kind)
        return True

    return _kept(data, keep)


_Keep: TypeAlias = Callable[[bytes], bool]
"""Whether to keep a part of metadata: a JPEG segment's content, or name and content of another chunk."""


def _kept(data: bytes, keep: _Keep) -> bytes:
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd8" + b"".join(_jpeg_segments(data, keep))
    if data.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(data, keep))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(data, keep))
        return b"RIFF" + len(body).to_bytes(4, "little") + body
    return data


def _jpeg_segments(data: bytes, keep: _Keep) -> Iterator[bytes]:
    """Segments but for APP1…APP13, APP15 and comments; the first scan comes with all that follows it."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:  # padding, or what a wrong length left behind
            at = max(data.find(b"\xff", at), at + 1)
            continue
        marker = data[at + 1]
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            yield data[at:]
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)) or keep(data[at + 4 : end]):
            yield data[at:end]
        at = end


def _png_chunks(data: bytes, keep: _Keep) -> Iterator[bytes]:
    """Chunks that make the pixels, and metadata that is whole."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        content, checksum = data[at + 4 : end - 4], data[end - 4 : end]
        if content[:4] in _PNG_PIXELS or (
            keep(content) and zlib.crc32(content).to_bytes(4, "big") == checksum
        ):
            yield data[at:end]
        at = end


def _webp_chunks(data: bytes, keep: _Keep) -> list[bytes]:
    at, chunks, follow = 12, list[bytes](), 0
    while at + 8 <= len(data):
        end = at + 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
        name, chunk = data[at : at + 4], data[at:end]
        if name not in _WEBP_METADATA or keep(name + chunk[8:]):
            chunks.append(chunk)
            follow |= _WEBP_METADATA.get(name, 0)
        at = end
    if chunks and chunks[0].startswith(b"VP8X"):
        flags = chunks[0][8] & ~sum(_WEBP_METADATA.values()) | follow
        chunks[0] = chunks[0][:8] + bytes([flags]) + chunks[0][9:]
    return chunks
