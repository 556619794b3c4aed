"""Loading photographs safely: from a path, bytes, a PIL image or an array to an upright RGB array."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.base.files import reason, shown
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.errors import (
    InputError,
    PhotoError,
    PhotoFormatError,
    PhotoNotFoundError,
    PhotoTooLargeError,
    XfrError,
    in_one_line,
)
from xfr_plugin.faces.alignment import fit_aligned
from xfr_plugin.faces.metadata import upright, without_metadata

__all__ = ["MAX_PIXELS", "PhotoSource", "SizeCheck", "load_photo", "read_face"]

PhotoSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | Image.Image | NDArray[Any]
"""A photo: path, encoded bytes, PIL image, or array H×W or H×W×(1, 3, 4) of uint8 0…255 or float 0…1."""

MAX_PIXELS = 50_000_000
"""Default pixel limit: larger than any phone's photo, small enough to decode within 150 MB."""

SizeCheck: TypeAlias = Callable[[int, int], None]
"""Called with a photo's width and height before it is decoded; raises what refuses it."""

_BLOCK_ROWS = 64
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def load_photo(
    source: PhotoSource, max_pixels: int = MAX_PIXELS, *, check: SizeCheck | None = None
) -> NDArray[np.uint8]:
    """Load a photo as an upright RGB array, H×W×3, 0…255.

    EXIF orientation is applied, and nothing else of the metadata is read. Any mode becomes RGB: grey is repeated,
    transparency is laid on white, more than 8 bits are scaled to 8. Of an animation the first frame is taken.

    Args:
        source: see `PhotoSource`.
        max_pixels: photos with more pixels are refused before they are decoded.
        check: may refuse other sizes, see `SizeCheck`.

    Raises:
        PhotoNotFoundError: there is no such file.
        PhotoFormatError: not an image, truncated, or a kind that cannot be read.
        PhotoTooLargeError: more than `max_pixels` pixels.
        InputError: the source is of none of these types, or an array of the wrong shape or range.
    """
    check_size = _size_check(max_pixels, check)
    if isinstance(source, np.ndarray):
        return _from_array(source, check_size)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the image", check_size)
    if isinstance(source, (bytes, bytearray)):
        return _from_stream(io.BytesIO(source), f"the data ({len(source)} bytes)", check_size)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source), check_size)
    how = ": photo.permute(1, 2, 0).numpy() is an array" if hasattr(source, "permute") else ""
    raise InputError(f"a photo is a path, bytes, a PIL image or an array, not {type(source).__name__}{how}")


_Check: TypeAlias = Callable[[str, int, int], None]


def _size_check(max_pixels: int, more: SizeCheck | None) -> _Check:
    """A check of a photo by name, width and height."""

    def check(name: str, width: int, height: int) -> None:
        if width * height > max_pixels:
            raise PhotoTooLargeError(
                f"{name} has {width}×{height} = {width * height:,} pixels, the limit is {max_pixels:,}: "
                "make it smaller"
            )
        if more is not None:
            more(width, height)

    return check


def _from_path(path: Path, check: _Check) -> NDArray[np.uint8]:
    name = shown(path)
    if os.path.isdir(path):
        raise PhotoFormatError(f"{name} is a folder, not a photo")
    try:
        with path.open("rb") as file:
            return _from_stream(file, name, check)
    except FileNotFoundError as error:
        raise PhotoNotFoundError(f"there is no photo at {name}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, XfrError):
            raise
        advice = ": encoded images are given as bytes, see base64.b64decode" if len(str(path)) > 255 else ""
        raise PhotoError(f"{name} cannot be read: {reason(error)}{advice}") from error


def _from_stream(stream: io.BytesIO | io.BufferedReader, name: str, check: _Check) -> NDArray[np.uint8]:
    try:
        return _decoded(stream, name, check)
    except PhotoFormatError:
        stream.seek(0)
        whole = stream.read()
        pixels_alone = without_metadata(whole)
        if pixels_alone == whole:
            raise
        return _decoded(io.BytesIO(pixels_alone), name, check)


def _decoded(stream: io.BytesIO | io.BufferedReader, name: str, check: _Check) -> NDArray[np.uint8]:
    try:
        # the limit is enforced below, before decoding; damaged EXIF is not worth a warning
        with ignoring(Warning), Image.open(stream, formats=_FORMATS) as image:
            return _from_pil(image, name, check)
    except Image.DecompressionBombError as error:
        raise PhotoTooLargeError(f"{name} has far too many pixels, beyond any limit") from error
    except XfrError:
        raise
    except Exception as error:  # readers raise many types on damaged files
        if stream.seek(0, io.SEEK_END) == 0:
            raise PhotoFormatError(f"{name} is empty") from error
        kinds = ", ".join(_FORMATS)
        raise PhotoFormatError(f"{name} is not an image that can be read ({kinds})") from error


def _from_pil(image: Image.Image, name: str, check: _Check) -> NDArray[np.uint8]:
    check(name, *image.size)
    try:
        _load(image)
        return np.asarray(_to_rgb(upright(image)))
    except PhotoError:
        raise
    except Exception as error:  # decoders raise many types on damaged pixels
        raise PhotoFormatError(f"{name} is damaged or truncated ({in_one_line(error)})") from error


def _load(image: Image.Image) -> None:
    """Decode the pixels; what fails after them, while metadata is read, does no harm.

    A decoder that gives up raises an OSError, and leaves black what it did not reach.
    """
    try:
        image.load()
    except Exception as error:
        if isinstance(error, OSError) or getattr(image, "tile", None) != []:
            raise
        image.load()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_depth_to_uint8(np.asarray(image))).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _depth_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale grey values of more than eight bits.

    16-bit integers are scaled by their range, 32-bit ones from 0…255 or 0…65535, and floats from 0…1 or 0…255:
    the smaller range that holds them all.
    """
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values")
    ranges = {"u": (65535.0,), "i": (255.0, 65535.0)}.get(values.dtype.kind, (1.0, 255.0))
    highest = float(values.max(initial=0))
    if values.dtype.kind == "i" and (highest > ranges[-1] or values.min(initial=0) < 0):
        raise ValueError("it holds 32-bit values outside of 0…65535: save it with 8 or 16 bits")
    top = next((top for top in ranges if highest <= top), ranges[-1])
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _BLOCK_ROWS):  # eight bytes a value would be much for all of them
        rows = slice(start, start + _BLOCK_ROWS)
        scaled[rows] = np.clip(values[rows].astype(np.float64) / top, 0, 1) * 255 + 0.5
    return scaled


def _from_array(array: NDArray[Any], check: _Check) -> NDArray[np.uint8]:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.size == 0:
        how = (
            ": array.transpose(1, 2, 0) puts the colours last"
            if array.shape[:1] in ((1,), (3,), (4,))
            else ""
        )
        raise InputError(f"a photo array must be H×W or H×W×(1, 3 or 4), got shape {array.shape}{how}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.uint8:
        values = array
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError("a photo array of floats must lie in 0…1 and hold no NaN: divide 0…255 by 255")
        values = (array * 255 + 0.5).astype(np.uint8)
    else:
        raise InputError(f"a photo array must be uint8 (0…255) or float (0…1), not {array.dtype}")
    return _from_pil(Image.fromarray(np.ascontiguousarray(values)), "the array", check)


def read_face(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """Read an aligned face at a size, H×W×3 in [0, 1].

    Raises:
        PhotoError: it cannot be read.
    """
    return (fit_aligned(load_photo(path), size) / 255).astype(np.float32)
