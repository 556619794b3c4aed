"""Hostile input: a clean error each, within bounded memory, and nothing read that was not sent."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.serving_faces import crops, photographs
from PIL import Image

from xfr_plugin.service import (
    Deployment,
    ExplanationService,
    Limits,
    ServiceError,
    json_schemas,
    parse_request,
)

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture(scope="module")
def service() -> ExplanationService:
    return ExplanationService(Deployment(limits=Limits(image_bytes=200_000, pixels=4_000_000)))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG of one colour that unpacks to width × height pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(min(height, 4000))) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "text")
    return buffer.getvalue()


def tiff() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (112, 112)).save(buffer, "TIFF")
    return buffer.getvalue()


HOSTILE = {
    "text": (b"hello", "not_an_image"),
    "empty": (b"", "not_an_image"),
    "zip": (archive(), "not_an_image"),
    "image and zip": (crops()[0] + archive(), "not_an_image"),
    "image and document": (crops()[0][:100] + b"%PDF-1.7" + crops()[0][100:], "not_an_image"),
    "another format": (tiff(), "not_an_image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "truncated": (crops()[0][:2000], "not_an_image"),
    "header only": (b"\xff\xd8\xff\xe0", "not_an_image"),
    "pickle": (b"\x80\x04\x95\x10\x00", "not_an_image"),
    "bomb": (png(30_000, 30_000), "too_large"),
    "small bomb": (png(3000, 2000), "too_large"),
    "text bomb": (
        png(8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 << 20)))),
        "no_face",  # the text stays packed: metadata refuses no photo
    ),
    "bytes": (b"\xff\xd8\xff" + bytes(300_000), "too_large"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_images(service: ExplanationService, name: str) -> None:
    data, code = HOSTILE[name]
    request = parse_request({"probe": crops()[0], "reference": data})
    with pytest.raises(ServiceError) as caught:
        service.answer(request)
    assert caught.value.code == code
    assert len(str(caught.value)) < 300


def test_four_bytes_of_chance_make_no_archive(service: ExplanationService) -> None:
    """Of large photographs one in 65,000 has those with which an archive ends, near its end."""
    data = crops()[0] + b"PK\5\6" + bytes(18)
    assert service.answer(parse_request({"probe": data, "reference": crops()[0]})).decision.match


ROW = [0.1] * 128

MALFORMED: dict[str, Any] = {
    "nothing": {},
    "one face": {"probe": ROW},
    "both": {"probe": ROW, "reference": ROW, "gallery": {"embeddings": [ROW]}},
    "path": {"probe": "/etc/passwd", "reference": ROW},
    "relative path": {"probe": "../../a.jpg", "reference": ROW},
    "url": {"probe": "http://127.0.0.1/a.jpg", "reference": ROW},
    "file url": {"probe": "file:///etc/passwd", "reference": ROW},
    "number": {"probe": 3, "reference": ROW},
    "null": {"probe": None, "reference": ROW},
    "nested": {"probe": [[0.1]], "reference": ROW},
    "words": {"probe": ["a"] * 128, "reference": ROW},
    "bools": {"probe": [True] * 128, "reference": ROW},
    "unknown field": {"probe": ROW, "reference": ROW, "treshold": 0.2},
    "unknown return": {"probe": ROW, "reference": ROW, "returns": ["everything"]},
    "threshold": {"probe": ROW, "reference": ROW, "threshold": float("inf")},
    "text threshold": {"probe": ROW, "reference": ROW, "threshold": "0.2"},
    "two thresholds": {"probe": ROW, "reference": ROW, "threshold": 0.2, "fmr": 0.01},
    "deadline": {"probe": ROW, "reference": ROW, "deadline_ms": -1},
    "long id": {"probe": ROW, "reference": ROW, "id": "x" * 1000},
    "list": [1, 2],
    "text": "hello",
}


@pytest.mark.parametrize("name", sorted(MALFORMED))
@pytest.mark.parametrize("as_text", [True, False])
def test_malformed_requests(name: str, as_text: bool) -> None:
    document = MALFORMED[name]
    with pytest.raises((ServiceError, ValueError)) as caught:
        parse_request(json.dumps(document).encode() if as_text else document)
    if isinstance(caught.value, ServiceError):
        assert caught.value.status == 400
        assert "passwd" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"probe":' * 50_000,
        b'{"probe": [NaN], "reference": [Infinity]}',
        b'{"probe": [1e999], "reference": [1]}',
    ],
)
def test_broken_json(text: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_request(text)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "embedding",
    [
        [0.0] * 128,
        [0.1] * 127,
        np.full(128, np.nan, "<f4").tobytes(),
        np.full(128, np.inf, "<f4").tobytes(),
        bytes(511),
        b"",
    ],
)
def test_embeddings_that_are_none(service: ExplanationService, embedding: list[float] | bytes) -> None:
    text = base64.b64encode(embedding).decode() if isinstance(embedding, bytes) else embedding
    request = parse_request(json.dumps({"probe": {"embedding": text}, "reference": ROW}))
    with pytest.raises(ServiceError) as caught:
        service.answer(request)
    assert (caught.value.code, caught.value.status) == ("malformed", 400)


def test_huge_embeddings_are_compared_by_direction(service: ExplanationService) -> None:
    request = parse_request({"probe": [1e300] * 128, "reference": [1e-3] * 128})
    assert service.answer(request).decision.score == pytest.approx(1)


@pytest.mark.parametrize("gallery", [{"embeddings": []}, {"embeddings": [ROW], "ids": ["a", "b"]}])
def test_wrong_galleries(service: ExplanationService, gallery: dict[str, Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        service.answer(parse_request({"probe": ROW, "gallery": gallery}))
    assert caught.value.code == "malformed"


def test_every_allowed_format_is_read(service: ExplanationService) -> None:
    face = Image.open(io.BytesIO(crops()[0]))
    for kind in ("PNG", "JPEG", "BMP", "WEBP"):
        buffer = io.BytesIO()
        face.save(buffer, kind)
        answer = service.answer(parse_request({"probe": buffer.getvalue(), "reference": crops()[0]}))
        assert answer.decision.score > 0.9


def test_images_as_base64_json(service: ExplanationService) -> None:
    texts = [base64.b64encode(photo).decode() for photo in photographs()]
    answer = service.answer(parse_request(json.dumps({"probe": texts[0], "reference": {"image": texts[1]}})))
    assert answer.decision.match


@pytest.mark.parametrize("name", ["request", "answer", "error"])
def test_published_schemas_are_current(name: str) -> None:
    """Written by `xfr schemas --out docs/schemas`."""
    published = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    assert published == json_schemas()[name]
