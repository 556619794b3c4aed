"""The state of one request on its way through a batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.faces import AlignedFace, RegionMap
from xfr_plugin.service.answers import Answer, Candidate, Decision, ExplanationAnswer, Warned
from xfr_plugin.service.errors import ServiceError, as_service_error
from xfr_plugin.service.explaining import Question, Side
from xfr_plugin.service.requests import FaceInput, Request

__all__ = ["Work", "attempt"]


@dataclass
class Work:
    """One request: what is known of it so far.

    Attributes:
        request: what is asked.
        explain: whether reasons are asked for.
        deadline: moment (`time.perf_counter`) after which the answer is worth nothing.
        method: that explains, once it is chosen.
        asked: method that was asked for, with `auto` resolved.
        faces: aligned faces by side, of those given as images.
        sides: embeddings and images, by side.
        gallery: unit embeddings N×D.
        threshold: to decide at.
        threshold_source: where it comes from, in words.
        ranked: of a gallery, positions of the candidates and the runner-up of the last one, best first.
        questions: what is explained: one for a pair, one for each of `ranked` for a gallery.
        labels: named regions of both faces, where they were found before the explanation is rendered.
        error: why there will be no answer.
    """

    request: Request
    explain: bool
    deadline: float | None = None
    method: str | None = None
    asked: str | None = None
    reason: str = ""
    faces: dict[str, AlignedFace] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    gallery: NDArray[np.float32] | None = None
    threshold: float = 0.0
    threshold_source: str = ""
    scores: NDArray[np.float64] | None = None
    ranked: list[int] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    labels: list[RegionMap] = field(default_factory=list)
    likenesses: dict[str, Tensor] = field(default_factory=dict)
    decision: Decision | None = None
    candidates: tuple[Candidate, ...] | None = None
    explanation: ExplanationAnswer | None = None
    warnings: list[Warned] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    error: ServiceError | None = None
    answer: Answer | None = None

    @property
    def inputs(self) -> dict[str, FaceInput]:
        """Faces that were given, by side."""
        given = {"probe": self.request.probe, "reference": self.request.reference}
        return {name: face for name, face in given.items() if face is not None}

    @property
    def has_image(self) -> bool:
        """Whether any face is an image."""
        return any(face.image is not None for face in self.inputs.values())

    def seconds_left(self) -> float:
        """Time to the deadline; infinite without one."""
        return float("inf") if self.deadline is None else self.deadline - time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the milliseconds that the block takes."""
        start = time.perf_counter()
        yield
        self.spent(stage, time.perf_counter() - start)

    def spent(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.timings[stage] = self.timings.get(stage, 0.0) + 1000 * seconds


@contextmanager
def attempt(work: Work) -> Iterator[None]:
    """Keep an error to the request that caused it."""
    try:
        yield
    except Exception as error:  # whatever it is, its neighbours in the batch are answered
        work.error = as_service_error(error)
        if work.error.code == "internal":
            work.error.__cause__ = error
