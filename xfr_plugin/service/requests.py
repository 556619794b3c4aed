"""What can be asked: one pair, or a probe against a gallery, as a typed request with a JSON schema."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from xfr_plugin.base.documents import Document
from xfr_plugin.errors import InputError
from xfr_plugin.service.errors import from_validation
from xfr_plugin.service.limits import NUMBERS_IN_EMBEDDING

__all__ = ["Base64Bytes", "FaceInput", "Gallery", "MapFormat", "Request", "Return", "parse_request"]

Return: TypeAlias = Literal[
    "regions", "maps", "overlay", "words", "faithfulness", "reconstructions", "embeddings"
]
"""What an answer can hold beside the decision."""

MapFormat: TypeAlias = Literal["png", "float32"]
"""Signed maps as pictures for the eye, or as little-endian float32, row by row; both as base64."""


def _from_base64(value: Any) -> Any:
    """Text is base64, always: it is never taken for a path or an address."""
    if isinstance(value, bytearray):
        return bytes(value)
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(
            value.encode().translate(None, b" \t\r\n"), validate=True
        )  # encoders break lines
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            "not base64: send the bytes of the file, encoded; paths and URLs are not read"
        ) from error


Base64Bytes = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""Bytes that are base64 text in JSON."""

Numbers: TypeAlias = Annotated[
    list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=NUMBERS_IN_EMBEDDING, fail_fast=True)
]
"""Numbers; the first that is wrong is told, and no other."""

Embedding: TypeAlias = Numbers | Base64Bytes
"""An embedding: D numbers, or D little-endian float32 as base64."""


class _Request(Document):
    model_config = ConfigDict(strict=True)


class FaceInput(_Request):
    """A face: the bytes of an image file, or a stored embedding.

    Attributes:
        image: JPEG, PNG, WebP or BMP file.
        embedding: of the deployed recognizer; need not be normalised.
        face: which face of the image, 0 being the largest.
    """

    image: Base64Bytes | None = None
    embedding: Embedding | None = None
    face: int = Field(default=0, ge=0, le=99)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, (str, bytes, bytearray)):
            return {"image": value}
        return {"embedding": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_of_both(self) -> FaceInput:
        if (self.image is None) == (self.embedding is None):
            raise ValueError("give either an image or an embedding")
        return self


class Gallery(_Request):
    """Stored embeddings to search.

    Attributes:
        embeddings: N embeddings of equal length D, or N×D little-endian float32 as base64.
        ids: a text for each, returned with the candidates; their positions serve, if left out.
        top: how many candidates to return.
    """

    embeddings: Annotated[list[Numbers], Field(fail_fast=True)] | Base64Bytes
    ids: Annotated[list[Annotated[str, Field(max_length=128)]], Field(fail_fast=True)] | None = None
    top: int = Field(default=5, ge=1, le=100)


class Request(_Request):
    """A question about faces.

    Attributes:
        id: returned with the answer.
        probe: the face in question.
        reference: the face that it is compared with; or
        gallery: the embeddings that it is searched in.
        explain: also say why. The endpoint decides, if left out: `explanations` do, `predictions` do not.
        method: attribution method; `auto` for the deployment's.
        threshold: decide at this score …
        fmr: … or at the threshold calibrated for this false match rate; at the deployment's, if both are left out.
        returns: what the answer holds beside the decision; regions and words, if left out.
        map_format: of the maps.
        alignment: `detect` faces, take images as `aligned` crops, or `auto` by their size.
        deadline_ms: the answer is worth nothing later than this, counted from where the service has the request.
    """

    id: str | None = Field(default=None, max_length=128)
    probe: FaceInput
    reference: FaceInput | None = None
    gallery: Gallery | None = None
    explain: bool | None = None
    method: str = Field(default="auto", max_length=64)
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    fmr: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    returns: list[Return] = Field(default=["regions", "words"], max_length=16)
    map_format: MapFormat = "png"
    alignment: Literal["auto", "detect", "aligned"] = "auto"
    deadline_ms: int | None = Field(default=None, ge=1, le=3_600_000)

    @model_validator(mode="after")
    def _consistent(self) -> Request:
        if (self.reference is None) == (self.gallery is None):
            raise ValueError("give either a reference or a gallery")
        if self.threshold is not None and self.fmr is not None:
            raise ValueError("give either a threshold or an fmr")
        if self.gallery is not None and "faithfulness" in self.returns:
            raise ValueError("faithfulness is checked for pairs only")
        return self

    def wants(self, what: Return) -> bool:
        """Whether the answer is to hold this."""
        return what in self.returns


def parse_request(document: bytes | str | dict[str, Any]) -> Request:
    """Read a request from JSON, or from a parsed document in which images may be bytes.

    Raises:
        ServiceError: `malformed`, with the fields that are wrong.
        InputError: the document is of another type.
    """
    try:
        if isinstance(document, (bytes, str)):
            return Request.model_validate_json(document)
        if isinstance(document, dict):
            return Request.model_validate(document)
    except ValidationError as error:
        raise from_validation(error) from None  # the cause would carry the values
    raise InputError(f"a request is a JSON object, not {type(document).__name__}")
