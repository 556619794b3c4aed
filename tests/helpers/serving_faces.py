"""Photographs for the tests of the service: no data is needed but scikit-image's astronaut."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from xfr_plugin.cli.demonstration import mirrored_and_darkened
from xfr_plugin.service.selftest import self_test_faces


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


@cache
def photographs() -> tuple[bytes, bytes]:
    """The astronaut, and her mirror image, as JPEG files."""
    photo = data.astronaut()
    return encoded(photo, "JPEG"), encoded(mirrored_and_darkened(photo, None), "JPEG")


@cache
def crops(count: int = 8) -> list[bytes]:
    """Aligned crops of 112×112 that look like distinct people: her face, in other colours and places."""
    face = np.asarray(Image.open(io.BytesIO(self_test_faces((112, 112))[0])).convert("RGB"))
    rng = np.random.default_rng(7)
    found = [face]
    while len(found) < count:
        mixed = np.roll(face[:, :, rng.permutation(3)], rng.integers(-12, 12, 2), axis=(0, 1))
        noisy = mixed * rng.uniform(0.5, 1.0) + rng.normal(0, 25, face.shape)
        found.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return [encoded(pixels) for pixels in found]
