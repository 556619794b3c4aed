"""What may make an answer less reliable, as warnings of the wire."""

from __future__ import annotations

from xfr_plugin.explanation.pipeline import Side
from xfr_plugin.explanation.quality import (
    DARKEST,
    FLATTEST,
    SMOOTHEST,
    Caution,
    decision_cautions,
    face_cautions,
    measure,
)
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces import AlignedFace
from xfr_plugin.recognition import Recognizer
from xfr_plugin.service.answers import Warned

__all__ = ["DARKEST", "FLATTEST", "SMOOTHEST", "decision_warnings", "face_warnings", "measure"]


def face_warnings(name: Side, face: AlignedFace) -> list[Warned]:
    """Warnings about a face, see `explanation.quality`."""
    return [_warned(caution) for caution in face_cautions(name, face)]


def decision_warnings(decision: Verification, recognizer: Recognizer) -> list[Warned]:
    """Warnings about a decision, see `explanation.quality`."""
    return [_warned(caution) for caution in decision_cautions(decision, recognizer)]


def _warned(caution: Caution) -> Warned:
    return Warned(code=caution.code, face=caution.face, message=caution.message)
