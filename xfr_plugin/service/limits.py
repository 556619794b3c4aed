"""What bounds a request: every number, in one place. `docs/serving.md` has the same table, held equal by a test."""

from __future__ import annotations

from pydantic import Field

from xfr_plugin.base.documents import Document

__all__ = ["DEPTH", "FIELDS", "KEYS", "MESSAGE_OVERHEAD", "NUMBERS_IN_EMBEDDING", "ROWS", "Limits"]

NUMBERS_IN_EMBEDDING = 8192
"""Numbers in an embedding of a request, before its length is compared with the recognizer's."""

ROWS = 256
"""Lists and objects in a JSON body, beside the embeddings of a gallery."""

DEPTH = 16
"""Nesting of a JSON body."""

KEYS = 1000
"""Keys of all objects in a JSON body."""

FIELDS = 32
"""Fields of a form; the schema names 14."""

MESSAGE_OVERHEAD = 64 << 10
"""Bytes that a server allows for beside the largest answer."""


class Limits(Document):
    """Bounds of a single request. What exceeds them is refused before it costs anything.

    Attributes:
        json_bytes: of a body.
        image_bytes: of an encoded image.
        pixels: of a decoded image.
        aspect: longest side of an image over its shortest.
        scan_pixels: pixels of a progressive JPEG times its scans, each of which passes over all pixels.
        numbers: values in a JSON body: numbers, texts and the like.
        gallery: embeddings in a gallery.
        top: candidates returned.
        instances: requests in one KServe body.
        answer_bytes: of the answer to a body.
        deadline_ms: longest time that a request may ask for; and the one of requests that ask for none.
        patience_ms: of CPU time, for which the reasons that a body asks for may keep others waiting, about.
        crowd_ms: of CPU time, for which decoding images of a batch, and finding faces, may keep others waiting.
        memory_mib: private memory of a worker process, beyond which allocations fail.
        cpu_seconds: of one batch, beyond which the worker process is ended.
    """

    json_bytes: int = Field(default=16 << 20, gt=0)
    image_bytes: int = Field(default=6 << 20, gt=0)
    pixels: int = Field(default=24_000_000, gt=0)
    aspect: int = Field(default=10, ge=1)
    scan_pixels: int = Field(default=270_000_000, gt=0)
    numbers: int = Field(default=2_000_000, gt=0)
    gallery: int = Field(default=10_000, ge=0)
    top: int = Field(default=10, ge=1)
    instances: int = Field(default=16, ge=1)
    answer_bytes: int = Field(default=6 << 20, gt=0)
    deadline_ms: int | None = Field(default=60_000, ge=1)
    patience_ms: int = Field(default=1000, ge=0)
    crowd_ms: int = Field(default=150, ge=1)
    memory_mib: int = Field(default=4096, ge=512)
    cpu_seconds: int = Field(default=120, ge=1)
