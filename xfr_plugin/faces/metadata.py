"""What photos carry beside their pixels: of it only the orientation is used, and no damage to it refuses a photo."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL import Image

__all__ = ["orientation", "upright", "without_metadata"]

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
_WEBP_METADATA = (b"EXIF", b"XMP ", b"ICCP")


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
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd8" + b"".join(_jpeg_segments(data))
    if data.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(data))
        return b"RIFF" + len(body).to_bytes(4, "little") + body
    return data


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
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
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            yield data[at:end]
        at = end


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """Chunks that make the pixels, and EXIF data that is whole."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name, checksum = data[at + 4 : at + 8], data[end - 4 : end]
        is_whole = zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big") == checksum
        if name in _PNG_PIXELS or (name == b"eXIf" and is_whole):
            yield data[at:end]
        at = end


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        end = at + 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
        name, chunk = data[at : at + 4], data[at:end]
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~0x2C]) + chunk[9:]  # says which metadata follows
        if name not in _WEBP_METADATA:
            yield chunk
        at = end
