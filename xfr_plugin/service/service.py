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

from xfr_plugin._version import __version__
from xfr_plugin.attr.amortised.model import evidence_file, load_evidence
from xfr_plugin.attr.registry import fast_method, get_method
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.verification import choose_threshold
from xfr_plugin.faces.cascade import CascadeDetector
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.reconstruction import Decoder, find_decoder, fingerprint, load_decoder
from xfr_plugin.service.answers import Answer, Reply, Versions, Warned
from xfr_plugin.service.costs import CostBook
from xfr_plugin.service.decoding import FaceSettings
from xfr_plugin.service.deployment import Deployment
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.explaining import Explainers
from xfr_plugin.service.guard import NETWORKS
from xfr_plugin.service.requests import Request
from xfr_plugin.service.stages import Models, choose_method, decide_all, embed_all, explain_all, prepare
from xfr_plugin.service.work import Work, attempt

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
        for parameter in recognizer.parameters():
            parameter.requires_grad_(False)
        decoder = _decoder(settings, recognizer)
        evidence = settings.evidence or evidence_file(recognizer)
        network = None if evidence is None else load_evidence(evidence, recognizer, recognizer.device)
        explainers = Explainers(recognizer, decoder, network)
        forward_seconds, dim = _measure(recognizer)
        default = settings.method or ("amortised" if network else fast_method(recognizer))
        self._models = Models(
            deployment=settings,
            recognizer=recognizer,
            decoder=decoder,
            explainers=explainers,
            costs=CostBook(forward_seconds),
            faces=FaceSettings(
                recognizer.input_size, CascadeDetector() if settings.detector else None, settings.limits
            ),
            method=default if default in settings.methods else settings.methods[0],
            embedding_dim=dim,
        )
        self.versions = Versions(
            package=__version__,
            recognizer=recognizer.name,
            recognizer_sha256=fingerprint(recognizer),
            decoder=decoder.card.name if decoder else None,
            evidence_sha256=None if evidence is None else sha256_of(evidence),
        )

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

    def estimate_ms(self, method: str) -> float:
        """Milliseconds that a method is expected to take for a pair."""
        return 1000 * self._models.costs.estimate(get_method(method).name)

    def answer(self, request: Request, explain: bool = False) -> Answer:
        """Answer one request.

        Args:
            request: what is asked.
            explain: whether to say why, if the request leaves it open.

        Raises:
            ServiceError: there is no answer, and why.
        """
        work = self._run([request], [explain])[0]
        if work.answer is None:
            raise work.error or ServiceError("internal", "no answer")
        return work.answer

    def answer_all(self, requests: Sequence[Request], explain: Sequence[bool]) -> list[Reply]:
        """Answer a batch: images are embedded in one forward pass, explanations share passes where they can.

        One answer or error for each request, in their order; an error of one does not touch the others.

        Args:
            requests: what is asked.
            explain: for each, whether to say why, if the request leaves it open.
        """
        return [_reply(work) for work in self._run(requests, explain)]

    def _run(self, requests: Sequence[Request], explain: Sequence[bool]) -> list[Work]:
        start = time.perf_counter()
        batch = [self._work(*pair, start) for pair in zip(requests, explain, strict=True)]
        models = self._models
        for stage in (
            partial(_each, prepare),
            embed_all,
            decide_all,
            partial(_each, choose_method),
            explain_all,
        ):
            _check_deadlines(batch)
            alive = [work for work in batch if work.error is None]
            stage(models, alive)
        _check_deadlines(batch)
        for work in batch:
            work.timings["total"] = 1000 * (time.perf_counter() - start)
            if work.error is None:
                with attempt(work):
                    work.answer = self._answer(work, len(batch))
            _log_internal(work)
        return batch

    def _work(self, request: Request, explain: bool, start: float) -> Work:
        wanted = explain if request.explain is None else request.explain
        limit = request.deadline_ms or self.deployment.limits.deadline_ms
        return Work(request, wanted, None if limit is None else start + limit / 1000)

    def _answer(self, work: Work, batch_size: int) -> Answer:
        assert work.decision is not None  # else there is an error
        warnings = list(work.warnings)
        if work.explanation and work.explanation.replaced:
            warnings.append(Warned(code="method_replaced", message=work.explanation.replaced.reason))
        return Answer(
            id=work.request.id,
            decision=work.decision,
            candidates=work.candidates,
            explanation=work.explanation,
            embeddings=self._models.embeddings(work),
            versions=self.versions,
            timings_ms={stage: round(value, 3) for stage, value in work.timings.items()},
            batch_size=batch_size,
            warnings=tuple(warnings),
        )


def _each(stage: Callable[[Models, Work], None], models: Models, batch: list[Work]) -> None:
    for work in batch:
        with attempt(work):
            stage(models, work)


def _check_deadlines(batch: list[Work]) -> None:
    for work in batch:
        if work.error is None and work.seconds_left() < 0:
            work.error = ServiceError(
                "deadline",
                "the deadline passed before the answer was ready: allow more time, or ask for less",
            )


def _reply(work: Work) -> Reply:
    if work.answer is not None:
        return work.answer
    return (work.error or ServiceError("internal", "no answer")).body(work.request.id)


def _log_internal(work: Work) -> None:
    """An error's type and place may be logged; its message may quote the request."""
    cause = work.error.__cause__ if work.error else None
    if work.error is not None and work.error.code == "internal" and cause is not None:
        trace = cause.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else "unknown"
        _log.error("internal error %s at %s", type(cause).__name__, where)


def _decoder(settings: Deployment, recognizer: Recognizer) -> Decoder | None:
    if settings.decoder is not None:
        return load_decoder(settings.decoder, recognizer)
    try:
        return find_decoder(recognizer)
    except InputError:
        return None


@torch.no_grad()
def _measure(recognizer: Recognizer, runs: int = 5) -> tuple[float, int]:
    """Time of a forward pass of a pair, the least of some (the first ones allocate), and length of an embedding."""
    images = torch.zeros(2, 3, *recognizer.input_size, device=recognizer.device, dtype=recognizer.dtype)
    seconds, dim = [], 0
    for _ in range(runs):
        start = time.perf_counter()
        with NETWORKS.shared():
            dim = recognizer.embed(images).shape[1]
        seconds.append(time.perf_counter() - start)
    return min(seconds), dim
