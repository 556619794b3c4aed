"""The explanation service: requests in, answers out, a batch at a time; no server is needed.

::

    service = ExplanationService(Deployment())
    answer = service.answer(parse_request({"probe": data_a, "reference": data_b, "explain": True}))
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from skimage.data import astronaut

from xfr_plugin._version import __version__
from xfr_plugin.attr.amortised.model import evidence_file, load_evidence
from xfr_plugin.attr.registry import METHODS, default_method, get_method
from xfr_plugin.base.priority import at_low_priority
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.verification import choose_threshold
from xfr_plugin.faces import Detector
from xfr_plugin.faces.search import FaceDetector
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.backends import PAYS
from xfr_plugin.recognition.fingerprint import fingerprint, fingerprints_kept
from xfr_plugin.recognition.self_test import faces_of_nobody
from xfr_plugin.reconstruction import Decoder, find_decoder, load_decoder
from xfr_plugin.service.answers import Answer, Reply, Versions
from xfr_plugin.service.batch import Batch, Clock
from xfr_plugin.service.costs import CostBook
from xfr_plugin.service.decoding import FaceSettings
from xfr_plugin.service.deployment import Deployment
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.explaining import Explainers
from xfr_plugin.service.requests import Request
from xfr_plugin.service.stages import (
    Models,
    answer,
    decide_together,
    explain_together,
    keep_deadline,
    open_inputs,
    plan,
    price,
)

__all__ = ["ExplanationService"]

_log = logging.getLogger(__name__)


class ExplanationService:
    """Answers requests. Safe to use from several threads.

    Args:
        deployment: models, limits, and what callers may ask for.

    Raises:
        WeightsError: the recognizer or decoder cannot be used.
        InputError: settings that do not fit the models.
    """

    def __init__(self, deployment: Deployment | None = None) -> None:
        self.deployment = deployment or Deployment()
        settings = self.deployment
        recognizer = load_recognizer(settings.recognizer, architecture=settings.architecture)
        choose_threshold(recognizer, settings.threshold, settings.fmr)  # a wrong one is an error now
        recognizer.requires_grad_(False)
        with fingerprints_kept():
            decoder = _decoder(settings, recognizer)
            file = settings.evidence or evidence_file(recognizer)
            network = None if file is None else load_evidence(file, recognizer, recognizer.device)
            default = settings.method or _default_method(recognizer, settings)
            versions = Versions(
                package=__version__,
                recognizer=recognizer.name,
                recognizer_sha256=fingerprint(recognizer),
                decoder=decoder.card.name if decoder else None,
                evidence_sha256=None if file is None else sha256_of(file),
            )
        forward_seconds, dim = _measure(recognizer)
        if not any(get_method(name).fits(recognizer.gives) for name in settings.methods):
            # the quick ones, which are allowed unless others are named, need a gradient
            settings = settings.model_copy(update={"methods": (default,)})
            self.deployment = settings
        detector = FaceDetector() if settings.detector else None
        self._models = Models(
            deployment=settings,
            recognizer=recognizer,
            # an export is made now, and put to the test; not at some request
            embedder=recognizer.for_forward_passes(PAYS),
            decoder=decoder,
            explainers=Explainers(recognizer, decoder, network, thrifty=settings.thrifty),
            costs=CostBook(forward_seconds),
            cpu_costs=CostBook(forward_seconds),
            faces=FaceSettings(
                recognizer.input_size,
                detector,
                settings.limits,
                _search_seconds(detector) if detector else 0.0,
            ),
            method=default if default in settings.methods else settings.methods[0],
            embedding_dim=dim,
            forward_seconds=forward_seconds,
            versions=versions,
        )

    @property
    def recognizer(self) -> Recognizer:
        """Whose scores are answered."""
        return self._models.recognizer

    @property
    def versions(self) -> Versions:
        """What answers."""
        return self._models.versions

    @property
    def method(self) -> str:
        """What `auto` stands for."""
        return self._models.method

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of aligned faces."""
        return self._models.recognizer.input_size

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return self._models.embedding_dim

    def answer(self, request: Request, explain: bool = False) -> Answer:
        """Answer one request.

        Args:
            request: what is asked.
            explain: whether to say why, if the request leaves it open.

        Raises:
            ServiceError: there is no answer, and why.
        """
        (reply,) = self._run([request], [explain])
        if isinstance(reply, ServiceError):
            raise reply
        return reply

    def answer_all(
        self,
        requests: Sequence[Request],
        explain: Sequence[bool],
        waited: Sequence[float] | None = None,
        bodies: Sequence[int] | None = None,
        may_be_slow: Callable[[], bool] | None = None,
    ) -> list[Reply]:
        """Answer a batch: images are embedded in one forward pass, explanations share passes where they can.

        One answer or error for each request, in their order; an error of one does not touch the others.

        Args:
            requests: what is asked.
            explain: for each, whether to say why, if the request leaves it open.
            waited: seconds for which each has waited, which count to its deadline.
            bodies: of which body each is, if not each of its own: those of one wait for each other.
            may_be_slow: makes the limits `crowd_ms` and `patience_ms` hold, for callers whom others may not keep
                waiting; asked, where something of every body does not keep them, whether it may take its time.
        """
        return [
            reply.body(request.id) if isinstance(reply, ServiceError) else reply
            for request, reply in zip(
                requests, self._run(requests, explain, waited, bodies, may_be_slow), strict=True
            )
        ]

    def _run(
        self,
        requests: Sequence[Request],
        explain: Sequence[bool],
        waited: Sequence[float] | None = None,
        bodies: Sequence[int] | None = None,
        may_be_slow: Callable[[], bool] | None = None,
    ) -> list[Answer | ServiceError]:
        start, size = time.perf_counter(), len(requests)
        limits = self.deployment.limits
        clocks = [
            Clock(start - before, request.deadline_ms or limits.deadline_ms)
            for request, before in zip(requests, waited or [0.0] * size, strict=True)
        ]
        asked = Batch(clocks, list(zip(requests, explain, clocks, strict=True)), bodies or range(size))
        if may_be_slow is None:
            replies = list(self._answers(asked, size).values)
        else:
            found = self._answers(asked, size, limits.crowd_ms / 1000, limits.patience_ms / 1000)
            replies, slow = list(found.values), asked.at(found.busy())
            if slow.bodies and set(slow.bodies) == set(asked.bodies) and may_be_slow():

                def at_leisure() -> None:
                    for place, reply in zip(found.busy(), self._answers(slow, size).values, strict=True):
                        replies[place] = reply

                at_low_priority(at_leisure)
        total = 1000 * (time.perf_counter() - start)
        return [_finished(reply, clock, total) for reply, clock in zip(replies, clocks, strict=True)]

    def _answers(
        self,
        asked: Batch[tuple[Request, bool, Clock]],
        size: int,
        crowd: float = float("inf"),
        patience: float = float("inf"),
    ) -> Batch[Answer]:
        """Bring requests through all stages: images within `crowd`, and reasons within `patience` seconds."""
        models = self._models
        return (
            asked.each(lambda each: plan(models, *each))
            .affordable(partial(price, models), patience)
            .each(partial(open_inputs, models), crowd)
            .together(partial(decide_together, models))
            .each(partial(keep_deadline, models))
            .together(
                partial(explain_together, models),
                key=lambda decided: decided.task.method,
                price=lambda decided: price(models, decided.task),
                patience=patience,
            )
            .each(lambda decided: answer(models, decided, size))
            .in_time()
        )


def _finished(reply: Answer | ServiceError, clock: Clock, total: float) -> Answer | ServiceError:
    if isinstance(reply, ServiceError):
        _log_internal(reply)
        return reply
    timings = {stage: round(value, 3) for stage, value in {**clock.timings, "total": total}.items()}
    return reply.model_copy(update={"timings_ms": timings})


def _log_internal(error: ServiceError) -> None:
    """An error's type and place may be logged; its message may quote the request."""
    cause = error.__cause__
    if error.code == "internal" and cause is not None:
        trace = cause.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else "unknown"
        _log.error("internal error %s at %s", type(cause).__name__, where)


def _default_method(recognizer: Recognizer, settings: Deployment) -> str:
    """What `auto` stands for unless the operator names another, or brings an evidence network of his own."""
    if settings.evidence is None:
        return default_method(recognizer)
    return next(method.name for method in METHODS.values() if method.needs == "evidence")


def _decoder(settings: Deployment, recognizer: Recognizer) -> Decoder | None:
    if settings.decoder is not None:
        return load_decoder(settings.decoder, recognizer)
    try:
        return find_decoder(recognizer)
    except InputError:
        return None


def _search_seconds(detector: Detector) -> float:
    """CPU time of finding a face that is easily found, once everything is loaded."""
    photo, seconds = astronaut(), float("inf")
    for _ in range(3):
        start = time.thread_time()
        detector(photo)
        seconds = min(seconds, time.thread_time() - start)
    return seconds


@torch.no_grad()
def _measure(recognizer: Recognizer, runs: int = 5) -> tuple[float, int]:
    """Time of a forward pass of a pair, the least of some (the first ones allocate), and length of an embedding.

    Of a recognizer that gives scores only, the time of a comparison, and 0.
    """
    images = faces_of_nobody(recognizer.input_size)[:2].to(recognizer.device, recognizer.dtype)
    seconds, dim = [], 0
    for _ in range(runs):
        start = time.perf_counter()
        rows = recognizer.represent(images)
        if recognizer.gives == "scores":
            recognizer.compare(rows[:1], rows[1:])
        else:
            dim = rows.shape[1]
        seconds.append(time.perf_counter() - start)
    return min(seconds), dim
