"""What may make an answer less reliable, as warnings with a code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace

from xfr_plugin.explanation.pipeline import Side
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces import AlignedFace
from xfr_plugin.recognition import Recognizer
from xfr_plugin.service.answers import Warned, WarningCode

__all__ = ["DARKEST", "FLATTEST", "SMOOTHEST", "decision_warnings", "face_warnings", "measure"]

DARKEST, FLATTEST, SMOOTHEST = 69.0, 20.0, 7.1
"""Least brightness, contrast and sharpness without a warning, 0…255: the 0.5 % quantiles of the aligned LFW
photographs of the training people (`benchmarks/serving_quality.py`)."""

_NEAR = 0.03


def measure(image: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Brightness (mean), contrast (standard deviation) and sharpness (that of the Laplacian) of the middle of an
    aligned face, H×W×3; all in grey levels, 0…255."""
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    rows, columns = (slice(side // 4, side - side // 8) for side in grey.shape)
    middle = grey[rows, columns]
    return float(middle.mean()), float(middle.std()), float(laplace(middle).std())


def face_warnings(name: Side, face: AlignedFace) -> list[Warned]:
    """Warnings about a face: what its preparation noted, and how it looks."""
    warned = [Warned(code=_code(note), face=name, message=note) for note in face.notes]
    if face.detected is None:
        warned.append(
            Warned(code="taken_as_aligned", face=name, message="the image was taken as an aligned crop")
        )
    brightness, contrast, sharpness = measure(face.image)
    for word, value, least in (
        ("dark", brightness, DARKEST),
        ("without contrast", contrast, FLATTEST),
        ("blurred", sharpness, SMOOTHEST),
    ):
        if value < least:
            message = f"the face is {word}: {value:.0f} grey levels, fewer than in 199 of 200 photographs"
            warned.append(Warned(code="low_quality", face=name, message=message))
    return warned


def decision_warnings(decision: Verification, recognizer: Recognizer) -> list[Warned]:
    """Warnings about a decision. Of a threshold that was given by hand nobody knows the error rates."""
    warned = []
    if abs(decision.margin) < _NEAR:
        message = (
            f"the score is within {_NEAR:g} of the threshold: small changes of a photo reverse the decision"
        )
        warned.append(Warned(code="near_threshold", message=message))
    if recognizer.calibration is None or decision.threshold_source == "given":
        message = "the threshold was not calibrated: its error rates are unknown"
        warned.append(Warned(code="out_of_calibration", message=message))
    return warned


def _code(note: str) -> WarningCode:
    return "tiny_face" if "tiny" in note else "several_faces"
