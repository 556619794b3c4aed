"""What a server's shell does with a batch of bodies, in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from xfr_plugin.service.answers import Reply
from xfr_plugin.service.deployment import Deployment, read_deployment
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.limits import MESSAGE_OVERHEAD, Limits
from xfr_plugin.service.requests import Request
from xfr_plugin.service.selftest import self_test
from xfr_plugin.service.service import ExplanationService
from xfr_plugin.service.sizes import answer_size
from xfr_plugin.service.wire import Message, Response, read_message

__all__ = ["open_service", "phrase", "respond", "settings_of"]

_FILES = ("recognizer", "decoder", "evidence")


def settings_of(model_config: Mapping[str, Any] | None, folder: str) -> Deployment:
    """Settings of a deployment: the section `handler` of a model configuration.

    A recognizer, decoder or evidence network that is a file of the archive's folder is taken from there.

    Raises:
        InputError: a setting that does not exist, or of the wrong type or range.
    """
    section = dict((model_config or {}).get("handler") or {})
    for name in _FILES:
        value = section.get(name)
        if isinstance(value, str) and Path(value).name == value and (Path(folder) / value).is_file():
            section[name] = str(Path(folder) / value)
    return read_deployment(section)


def open_service(deployment: Deployment) -> ExplanationService:
    """Load the models, warm up, and test them.

    Raises:
        XfrError: they cannot be used, or fail the self-test.
    """
    service = ExplanationService(deployment)
    self_test(service, service.input_size)
    return service


def respond(
    service: ExplanationService,
    items: Sequence[Mapping[str, Any]],
    headers: Sequence[Mapping[str, Any]],
    waited: Sequence[float] | None = None,
    may_be_slow: Callable[[], bool] | None = None,
) -> list[Response]:
    """Answer a batch of bodies; a response for each, in their order.

    Args:
        service: that answers.
        items: fields of each body, see `wire.read_message`.
        headers: of each; `explain` is "True" for the endpoint of explanations.
        waited: seconds for which each has waited.
        may_be_slow: asked when every body is slow, so that nobody waits who is quick; else slow ones are told to
            come again. Without it there is no hurry: the limits `crowd_ms` and `patience_ms` do not hold.
    """
    limits = service.deployment.limits
    messages = [
        read_message(item, {k: v for k, v in own.items() if isinstance(v, str)}, _explains(own), limits)
        for item, own in zip(items, headers, strict=True)
    ]
    messages = [_answerable(service, message) for message in messages]
    before = waited or [0.0] * len(messages)
    asked = [
        (body, request)
        for body, message in enumerate(messages)
        for request in message.requests
        if isinstance(request, Request)
    ]
    bodies = [body for body, _ in asked]

    def nobody_waits() -> bool:
        """A body that holds no request waits, too."""
        return len(set(bodies)) == len(messages) and may_be_slow is not None and may_be_slow()

    replies = service.answer_all(
        [request for _, request in asked],
        [messages[body].explain for body in bodies],
        [before[body] for body in bodies],
        bodies,
        None if may_be_slow is None else nobody_waits,
    )
    answers = iter(replies)
    return [_within(limits, message, message.respond(_replies(message, answers))) for message in messages]


def _answerable(service: ExplanationService, message: Message) -> Message:
    """The message, or errors in it if its answers could be larger than what is sent."""
    limits = service.deployment.limits
    size = sum(
        answer_size(request, message.explain, service.deployment, service.input_size, service.embedding_dim)
        for request in message.requests
        if isinstance(request, Request)
    )
    if size <= limits.answer_bytes:
        return message
    error = ServiceError(
        "too_large",
        f"the answer could have {size:,} bytes, the limit is {limits.answer_bytes:,}: ask for fewer maps, "
        "pictures, candidates or instances at once",
    )
    refused = tuple(
        error.about(request.id) if isinstance(request, Request) else request for request in message.requests
    )
    return replace(message, requests=refused)


def _within(limits: Limits, message: Message, response: Response) -> Response:
    if len(response.body.encode()) <= limits.answer_bytes + MESSAGE_OVERHEAD:
        return response
    error = ServiceError("too_large", "the answer is larger than what is sent: ask for less at once")
    return message.respond([error.body()] * len(message.requests))


def phrase(status: int) -> str:
    """The words that go with an HTTP status."""
    return HTTPStatus(status).phrase


def _explains(headers: Mapping[str, Any]) -> bool:
    return headers.get("explain") == "True"


def _replies(message: Message, answers: Any) -> list[Reply]:
    return [
        request.body() if isinstance(request, ServiceError) else next(answers) for request in message.requests
    ]
