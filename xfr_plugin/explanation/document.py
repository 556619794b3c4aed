"""An explanation as a file: one JSON document that holds everything, and the picture beside it."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, ValidationError

from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import atomic_path, write_text, writing_to
from xfr_plugin.errors import InputError, PhotoError, ResultError, first_fault
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, RegionEvidence
from xfr_plugin.explanation.faithfulness import Faithfulness
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces.photo import load_photo
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.calibration import Calibration

__all__ = [
    "Base64",
    "ExplanationDocument",
    "FaceDocument",
    "MapDocument",
    "decode_image",
    "decode_map",
    "decode_regions",
    "encode_image",
    "encode_map",
    "encode_regions",
    "read_explanation",
    "read_saved",
    "write_both",
    "write_explanation",
]

Saved = TypeVar("Saved")


def _checked_base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    return text


Base64 = Annotated[str, AfterValidator(_checked_base64)]
"""Text that is checked to be base64."""


class MapDocument(Document):
    """A signed map: little-endian float32, row by row, as base64."""

    height: int
    width: int
    float32: Base64


class FaceDocument(Document):
    """One face: aligned crop as a base64 PNG, signed map, evidence by region, and where the regions lie: a grey
    base64 PNG of their numbers in `regions`."""

    image_png: Base64
    saliency: MapDocument
    regions: tuple[RegionEvidence, ...]
    labels_png: Base64


class ExplanationDocument(Document):
    """The JSON form of an `Explanation`."""

    format: Literal["xfr-explanation/1"] = "xfr-explanation/1"
    version: str
    verification: Verification
    method: str
    options: dict[str, Any]
    timings: dict[str, float]
    notes: tuple[str, ...]
    probe: FaceDocument
    reference: FaceDocument
    faithfulness: Faithfulness | None = None
    calibration: Calibration | None = None


def write_explanation(explanation: Explanation, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write picture and document; see `Explanation.save`."""
    from xfr_plugin.explanation.figures.explanation import explanation_png  # builds on this module

    return write_both(explanation_png(explanation), to_document(explanation), folder / stem)


def read_explanation(path: Path) -> Explanation:
    """Read a document; see `Explanation.load`."""
    return read_saved(
        "explanation", path, lambda text: _from_document(ExplanationDocument.model_validate_json(text))
    )


def write_both(picture: bytes, document: Document, path: Path) -> tuple[Path, Path]:
    """Write a picture (PNG) and the document beside it, each whole or not at all; `path` is theirs without a suffix.

    Raises:
        ResultError: the folder cannot be written to.
    """
    image, text = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.json")
    with writing_to(path.parent):
        with atomic_path(image) as temporary:
            temporary.write_bytes(picture)
        write_text(text, document.model_dump_json(indent=1))
    return image, text


def read_saved(what: str, path: Path, parse: Callable[[str], Saved]) -> Saved:
    """Read a saved `what` from its text.

    Raises:
        ResultError: the file is missing, damaged, or no such document.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultError(f"there is no {what} at {path}") from error
    except ValidationError as error:
        fault = first_fault(error, "the document")
        raise ResultError(f"{path.name} is not a saved {what}: {fault}") from error
    except (OSError, ValueError, InputError, PhotoError) as error:
        raise ResultError(f"{path.name} is a damaged {what} ({error})") from error


def to_document(explanation: Explanation) -> ExplanationDocument:
    """Turn an explanation into its JSON form."""
    return ExplanationDocument(
        version=explanation.version,
        verification=explanation.verification,
        method=explanation.method,
        options=dict(explanation.options),
        timings=dict(explanation.timings),
        notes=explanation.notes,
        probe=_face_document(explanation.probe),
        reference=_face_document(explanation.reference),
        faithfulness=explanation.faithfulness,
        calibration=explanation.calibration,
    )


def encode_image(image: NDArray[np.uint8]) -> str:
    """Turn an image H×W×3, or a grey one H×W, into a base64 PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decode_image(text: str) -> NDArray[np.uint8]:
    """Turn a base64 PNG back into an image.

    Raises:
        PhotoError: the data is no image.
    """
    return load_photo(base64.b64decode(text))


def encode_map(saliency: NDArray[np.float32]) -> MapDocument:
    """Turn a map H×W into its JSON form."""
    height, width = saliency.shape
    data = np.ascontiguousarray(saliency, dtype="<f4").tobytes()
    return MapDocument(height=height, width=width, float32=base64.b64encode(data).decode())


def decode_map(document: MapDocument) -> NDArray[np.float32]:
    """Turn the JSON form of a map back into it.

    Raises:
        ValueError: sizes and data do not fit, or a value is not finite.
    """
    values = np.frombuffer(base64.b64decode(document.float32), dtype="<f4")
    if values.size != document.height * document.width or not np.isfinite(values).all():
        raise ValueError("a map does not hold height × width finite numbers")
    return values.reshape(document.height, document.width).astype(np.float32)


def encode_regions(regions: RegionMap) -> str:
    """Where regions lie, as a grey base64 PNG of their numbers."""
    return encode_image(regions.labels)


def decode_regions(text: str, evidence: Sequence[RegionEvidence]) -> RegionMap:
    """The regions again; their names are those of the evidence."""
    return RegionMap(decode_image(text)[..., 0], tuple(region.region for region in evidence))


def _face_document(face: FaceExplanation) -> FaceDocument:
    return FaceDocument(
        image_png=encode_image(face.image),
        saliency=encode_map(face.saliency),
        regions=face.regions,
        labels_png=encode_regions(face.region_map),
    )


def _from_document(document: ExplanationDocument) -> Explanation:
    return Explanation(
        verification=document.verification,
        probe=_face(document.probe),
        reference=_face(document.reference),
        method=document.method,
        options=document.options,
        timings=document.timings,
        notes=document.notes,
        version=document.version,
        faithfulness=document.faithfulness,
        calibration=document.calibration,
    )


def _face(document: FaceDocument) -> FaceExplanation:
    return FaceExplanation(
        decode_image(document.image_png),
        decode_map(document.saliency),
        document.regions,
        decode_regions(document.labels_png, document.regions),
    )
