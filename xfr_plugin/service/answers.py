"""What is answered: the decision, its reasons, how they were made, and what makes them less reliable."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from xfr_plugin.base.documents import Document, with_keys_once
from xfr_plugin.explanation.document import Base64, MapDocument
from xfr_plugin.explanation.explanation import RegionEvidence
from xfr_plugin.explanation.faithfulness import Faithfulness
from xfr_plugin.explanation.quality import CautionCode
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.recognition.strength import Strength
from xfr_plugin.service.errors import ErrorBody
from xfr_plugin.service.requests import Request

__all__ = [
    "Answer",
    "Candidate",
    "Decision",
    "ExplanationAnswer",
    "FaceReasons",
    "MapDocument",
    "Replacement",
    "Reply",
    "Versions",
    "Warned",
    "WarningCode",
    "json_schemas",
    "reply_from_json",
]

WarningCode: TypeAlias = Literal[CautionCode, "method_replaced"]
"""What may make an answer less reliable."""


class Warned(Document):
    """A warning: its kind, whom it concerns, and a sentence."""

    code: WarningCode
    face: Literal["probe", "reference"] | None = None
    message: str


class Decision(Document):
    """The decision on two faces.

    Attributes:
        match: the score is at or above the threshold.
        score: cosine of the two embeddings, −1…1; of a recognizer that gives scores only, its score.
        threshold: that was decided at.
        threshold_source: where it comes from, in words.
        margin: score less threshold.
        log_likelihood_ratio: natural logarithm, "same person" against "different people"; None without calibration.
        strength: the same as log10, within the bounds of what the calibration data can show.
    """

    match: bool
    score: float
    threshold: float
    threshold_source: str
    margin: float
    log_likelihood_ratio: float | None = None
    strength: Strength | None = None

    @classmethod
    def of(cls, made: Verification) -> Decision:
        """The decision without what is the same for all answers of a deployment."""
        return cls(**{name: getattr(made, name) for name in cls.model_fields})


class FaceReasons(Document):
    """What argues in one face. Only what was asked for is there.

    Attributes:
        regions: evidence by named region, in the units of the method.
        map_float32: signed map.
        map_png: signed map as a picture: blue argues for a match, orange against.
        overlay_png: the map over the grey face; not there for a face given as an embedding.
        reconstruction_png: what the decoder makes of the embedding. A likeness: treat it as personal data.
    """

    regions: tuple[RegionEvidence, ...] | None = None
    map_float32: MapDocument | None = None
    map_png: Base64 | None = None
    overlay_png: Base64 | None = None
    reconstruction_png: Base64 | None = None


class Replacement(Document):
    """The method that was asked for, and why another one answered."""

    asked: str
    used: str
    reason: str


class ExplanationAnswer(Document):
    """Why the decision is as it is.

    Attributes:
        method: that made the maps.
        title: its full name.
        paper: where it was published.
        options: all options of the method.
        caveat: what keeps its maps from being taken at face value.
        replaced: set if another method was asked for.
        probe: reasons in the probe; None if the method cannot explain a stored embedding.
        reference: reasons in the reference, likewise.
        words: the reasons in sentences.
        faithfulness: whether the score follows what the maps point at.
    """

    method: str
    title: str
    paper: str
    options: dict[str, Any]
    caveat: str
    replaced: Replacement | None = None
    probe: FaceReasons | None = None
    reference: FaceReasons | None = None
    words: tuple[str, ...] | None = None
    faithfulness: Faithfulness | None = None


class Candidate(Document):
    """One of the best of a gallery.

    Attributes:
        index: position in the gallery, from 0.
        id: as given.
        decision: on probe and candidate.
        lead: score less that of the next candidate; None for the last of a gallery.
        against: index of that next candidate, the runner-up, which the explanation compares with.
        explanation: what argues for this candidate rather than the runner-up: the difference of their maps. Its
            evidence adds up to `lead`, with a method whose evidence adds up to the margin. None without a runner-up.
    """

    index: int
    id: str | None = None
    decision: Decision
    lead: float | None = None
    against: int | None = None
    explanation: ExplanationAnswer | None = None


class Versions(Document):
    """What answered.

    Attributes:
        package: version of this package.
        recognizer: its name.
        recognizer_sha256: fingerprint of its weights and preprocessing.
        decoder: name of the decoder, if one is loaded.
        evidence_sha256: checksum of the evidence network's file, if one is loaded.
    """

    package: str
    recognizer: str
    recognizer_sha256: str
    decoder: str | None = None
    evidence_sha256: str | None = None


class Answer(Document):
    """The answer to a request.

    Attributes:
        format: of this document.
        id: of the request.
        decision: on the pair; for a gallery on the best candidate.
        candidates: for a gallery, best first.
        explanation: of a pair, if it was asked for.
        embeddings: unit embeddings of the images, float32 as base64, by side; only where the deployment allows it.
        versions: what answered.
        timings_ms: milliseconds by stage; those of stages that a batch shares are the batch's.
        batch_size: requests that were answered together.
        warnings: what may make the answer less reliable.
    """

    format: Literal["xfr-answer/1"] = "xfr-answer/1"
    id: str | None = None
    decision: Decision
    candidates: tuple[Candidate, ...] | None = None
    explanation: ExplanationAnswer | None = None
    embeddings: dict[str, Base64] | None = None
    versions: Versions
    timings_ms: dict[str, float]
    batch_size: int = Field(ge=1)
    warnings: tuple[Warned, ...] = ()


Reply: TypeAlias = Answer | ErrorBody
"""What comes back for a request."""

_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="format")])


def reply_from_json(document: bytes | str) -> Reply:
    """Read an answer or error; raises pydantic's ValidationError for anything else."""
    return _REPLY.validate_json(with_keys_once(document, "answer"))


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON schemas of request, answer and error, by name."""
    return {
        "request": Request.model_json_schema(),
        "answer": Answer.model_json_schema(mode="serialization"),
        "error": ErrorBody.model_json_schema(mode="serialization"),
    }
