"""From bytes of a stranger to aligned faces and embeddings, within bounded memory, reading nothing else."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.deadlines import check_deadline
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.errors import FaceWarning, PhotoTooLargeError, XfrError
from xfr_plugin.faces import AlignedFace, Alignment, Detector, load_photo, prepare_face
from xfr_plugin.faces.metadata import with_orientation_alone
from xfr_plugin.faces.photo import SizeCheck
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.limits import Limits
from xfr_plugin.service.requests import Gallery

__all__ = ["FaceSettings", "check_image", "decode_embedding", "decode_face", "decode_gallery", "decode_photo"]

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")
_SMALLEST_NORM = 1e-6
_PIXELS_A_SECOND, _JPEG_PIXELS_A_SECOND, _SCANNED_A_SECOND = 35e6, 80e6, 500e6
"""How fast images are decoded, about, and what is added for each further scan: it cannot be interrupted."""
_MOST_MARKS = 150_000
_MOST_CHUNKS = 10_000
_BMP_RUNS = (b"\1\0\0\0", b"\2\0\0\0")
"""Compressions of BMP that are unpacked step by step."""


@dataclass(frozen=True)
class FaceSettings:
    """How images become aligned faces.

    Attributes:
        size: of the crops, height and width.
        detector: finds faces in photographs; None if all images are aligned crops.
        limits: of the deployment.
        search_seconds: of CPU time that it takes at least to find a face.
    """

    size: tuple[int, int]
    detector: Detector | None
    limits: Limits
    search_seconds: float = 0.0


def check_image(data: bytes, limits: Limits) -> None:
    """Refuse what is no plain image file, before any decoder sees it.

    Raises:
        ServiceError: `too_large` or `not_an_image`.
    """
    if len(data) > limits.image_bytes:
        raise ServiceError(
            "too_large",
            f"the image has {len(data):,} bytes, the limit is {limits.image_bytes:,}: make it smaller",
        )
    if not (data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")):
        if not data:
            raise ServiceError("not_an_image", "the image is empty")
        raise ServiceError(
            "not_an_image", "the data is no JPEG, PNG, WebP or BMP image: save it as one of these"
        )
    # a file that is two things at once is nobody's photo
    is_archive = b"PK\1\2" in data and zipfile.is_zipfile(io.BytesIO(data))  # either alone may be chance
    if b"%PDF-" in data[:1024] or is_archive:
        raise ServiceError(
            "not_an_image", "the image file is also an archive or document: save it as an image"
        )
    if _has_many_parts(data):
        raise ServiceError("not_an_image", "the image file has far more parts than images have: save it anew")
    width, height = _canvas_of_webp(data)
    if width * height > limits.pixels:
        raise ServiceError("too_large", f"the image has more than {limits.pixels:,} pixels: make it smaller")


def check_size(
    data: bytes, limits: Limits, later: Callable[[int, int], float] = lambda width, height: 0.0
) -> SizeCheck:
    """What refuses an image by its width and height, before its pixels are decoded.

    Args:
        data: the encoded image.
        limits: of the deployment.
        later: seconds of CPU time that come after decoding, see `check_deadline`, by width and height.
    """
    is_jpeg = data.startswith(b"\xff\xd8")
    scans = data.count(b"\xff\xda") if is_jpeg else 1
    rate = _JPEG_PIXELS_A_SECOND if is_jpeg else _PIXELS_A_SECOND

    def check(width: int, height: int) -> None:
        if max(width, height) > limits.aspect * min(width, height):
            raise PhotoTooLargeError(
                f"one side of the image is more than {limits.aspect} times the other: cut out the face"
            )
        if width * height * scans > limits.scan_pixels:
            raise PhotoTooLargeError(
                f"an image of {scans} scans may have {limits.scan_pixels // scans:,} pixels: save it plainly"
            )
        seconds = width * height * (1 / rate + (scans - 1) / _SCANNED_A_SECOND)
        check_deadline(seconds, later(width, height))

    return check


def decode_face(
    data: bytes, settings: FaceSettings, alignment: Alignment, face: int, of_images: int = 1
) -> AlignedFace:
    """Decode an image and align its face.

    Args:
        data: the encoded image.
        settings: of the deployment.
        alignment: see `faces.prepare_face`.
        face: likewise.
        of_images: how many the request has, this one included, that are still to be decoded: a face that is looked
            for in one will be looked for in all.

    Raises:
        ServiceError: `too_large`, `not_an_image`.
        FaceError: no face, see `faces.prepare_face`.
        DeadlineError: see `base.deadlines`.
    """

    def search(width: int, height: int) -> float:
        passes = alignment == "aligned" or (alignment == "auto" and (height, width) == settings.size)
        return 0.0 if passes else of_images * settings.search_seconds

    photo = _decoded(data, settings.limits, search)
    with ignoring(FaceWarning):  # the same words are in the face's notes
        return prepare_face(
            photo,
            settings.size,
            detector=settings.detector,
            alignment=alignment,
            face=face,
            max_pixels=settings.limits.pixels,
        )


def decode_photo(data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decode an image, upright RGB, H×W×3; raises as `decode_face` does."""
    return _decoded(data, limits, lambda width, height: 0.0)


def _decoded(data: bytes, limits: Limits, later: Callable[[int, int], float]) -> NDArray[np.uint8]:
    check_image(data, limits)
    data = with_orientation_alone(data)
    photo = _photo(data, limits, check_size(data, limits, later))
    check_deadline()
    return photo


def _photo(data: bytes, limits: Limits, check: SizeCheck) -> NDArray[np.uint8]:
    try:
        return load_photo(data, limits.pixels, check=check)
    except XfrError:
        raise
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
        # decoders of single formats raise these from their headers, e.g. for text that unpacks too far
        raise ServiceError(
            "not_an_image", "the image is damaged, or holds more than an image should"
        ) from error


def _has_many_parts(data: bytes) -> bool:
    """Whether a reader would go through more segments or chunks, one by one, than a photo has; or through runs."""
    if data.startswith(b"\xff\xd8"):
        return data.count(b"\xff") - data.count(b"\xff\0") > _MOST_MARKS
    if data.startswith(b"\x89PNG"):
        return _has_many_chunks(data, 8, 12, slice(0, 4), "big")
    if data.startswith(b"RIFF"):
        return _has_many_chunks(data, 12, 8, slice(4, 8), "little")
    return data.startswith(b"BM") and data[30:34] in _BMP_RUNS


def _has_many_chunks(data: bytes, at: int, more: int, size: slice, order: Literal["big", "little"]) -> bool:
    """Whether there are more chunks than photos have; each has `more` bytes than its size says."""
    for _ in range(_MOST_CHUNKS):
        at += more + int.from_bytes(data[at : at + 8][size], order)
        if at >= len(data):
            return False
    return True


def _canvas_of_webp(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP; its reader makes room for them before it says how large they are."""
    if data[:4] != b"RIFF":
        return 0, 0
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    sides = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
    return sides[0] & 0x3FFF, sides[1] & 0x3FFF


def decode_embedding(value: list[float] | bytes, length: int) -> NDArray[np.float32]:
    """A unit embedding of this length.

    Raises:
        ServiceError: `malformed`: wrong length, not finite, or zero.
    """
    unit: NDArray[np.float32] = _units(_numbers(value).reshape(1, -1), length, "the embedding")[0]
    return unit


def decode_gallery(gallery: Gallery, length: int, limits: Limits) -> NDArray[np.float32]:
    """Unit embeddings of a gallery, N×D.

    Raises:
        ServiceError: `malformed` or `too_large`.
    """
    raw = gallery.embeddings
    count = len(raw) // (4 * length) if isinstance(raw, bytes) else len(raw)
    if count > limits.gallery:
        raise ServiceError("too_large", f"the gallery has {count} embeddings, the limit is {limits.gallery}")
    if isinstance(raw, bytes):
        numbers = _numbers(raw)
        if numbers.size == 0 or numbers.size % length:
            raise ServiceError("malformed", f"gallery: not a multiple of {length} float32 numbers")
        numbers = numbers.reshape(-1, length)
    else:
        if not raw or any(len(row) != length for row in raw):
            raise ServiceError("malformed", f"gallery: must hold embeddings of {length} numbers each")
        numbers = np.asarray(raw, dtype=np.float64)
    if gallery.ids is not None and len(gallery.ids) != len(numbers):
        raise ServiceError("malformed", f"gallery: {len(gallery.ids)} ids for {len(numbers)} embeddings")
    return _units(numbers, length, "gallery")


def _numbers(value: list[float] | bytes) -> NDArray[np.float64]:
    if not isinstance(value, bytes):
        return np.asarray(value, dtype=np.float64)
    if len(value) % 4:
        raise ServiceError("malformed", "an embedding as base64 must be float32 numbers of 4 bytes each")
    return np.frombuffer(value, dtype="<f4").astype(np.float64)


def _units(rows: NDArray[np.float64], length: int, what: str) -> NDArray[np.float32]:
    if rows.shape[1] != length:
        raise ServiceError("malformed", f"{what} has {rows.shape[1]} numbers, the recognizer's have {length}")
    if not np.isfinite(rows).all():
        raise ServiceError("malformed", f"{what} holds NaN or infinite numbers")
    scale = np.abs(rows).max(axis=1, keepdims=True)  # first, so that no square overflows
    if (scale < _SMALLEST_NORM).any():
        raise ServiceError("malformed", f"{what} is zero: no direction to compare")
    scaled = rows / scale
    units: NDArray[np.float32] = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float32)
    return units
