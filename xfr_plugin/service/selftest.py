"""Before a deployment answers anybody: does it give the right answer to a question whose answer is known?"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data, transform

from xfr_plugin.errors import XfrError
from xfr_plugin.service.answers import Answer
from xfr_plugin.service.requests import FaceInput, Request
from xfr_plugin.service.service import ExplanationService

__all__ = ["SelfTestError", "self_test", "self_test_faces"]

_LEAST_SELF_SCORE = 0.999


class SelfTestError(XfrError):
    """The deployment does not work: it must not answer anybody."""


def self_test_faces(size: tuple[int, int]) -> tuple[bytes, bytes]:
    """A face and a picture of noise as PNG files, each an aligned crop of `size` (height, width)."""
    photo = data.astronaut()[:280, 80:360]  # her face
    face = (transform.resize(photo, size, anti_aliasing=True) * 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    return _png(face), _png(noise)


def self_test(service: ExplanationService, size: tuple[int, int]) -> list[Answer]:
    """Explain a face against itself and against noise, in one batch; also warms everything up.

    Raises:
        SelfTestError: an answer is missing or wrong.
    """
    face, noise = self_test_faces(size)
    requests = [
        Request(
            id=f"self-test-{name}",
            probe=FaceInput(image=face),
            reference=FaceInput(image=other),
            alignment="aligned",
            returns=["regions", "maps", "overlay", "words"],
        )
        for name, other in (("same", face), ("noise", noise))
    ]
    answers = []
    for request, reply in zip(requests, service.answer_all(requests, [True, True]), strict=True):
        if not isinstance(reply, Answer):
            raise SelfTestError(f"self-test: {reply.code}: {reply.message}")
        if reply.id != request.id or reply.explanation is None:
            raise SelfTestError("self-test: an answer without reasons, or of another request")
        answers.append(reply)
    same, different = (answer.decision for answer in answers)
    is_cosine = service.recognizer.gives != "scores"
    if not same.match or (is_cosine and same.score < _LEAST_SELF_SCORE):
        expected = "expected 1" if is_cosine else f"and matches from {same.threshold:g} on"
        raise SelfTestError(f"self-test: a face scores {same.score:.4f} against itself, {expected}")
    if different.score >= (_LEAST_SELF_SCORE if is_cosine else same.score):
        raise SelfTestError(
            "self-test: a face and noise cannot be told apart: are these the trained weights?"
        )
    _check_evidence(answers)
    return answers


def _check_evidence(answers: list[Answer]) -> None:
    for answer in answers:
        assert answer.explanation is not None
        for reasons in (answer.explanation.probe, answer.explanation.reference):
            if reasons is None or reasons.regions is None or reasons.overlay_png is None:
                raise SelfTestError("self-test: a face without reasons")
            if not any(region.evidence for region in reasons.regions):
                raise SelfTestError("self-test: no region has any evidence")
            Image.open(io.BytesIO(base64.b64decode(reasons.overlay_png))).verify()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
