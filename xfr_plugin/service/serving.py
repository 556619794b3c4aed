"""What a server's shell does with a batch of bodies, in plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from xfr_plugin.service.answers import Reply
from xfr_plugin.service.deployment import Deployment, read_deployment
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.requests import Request
from xfr_plugin.service.selftest import self_test
from xfr_plugin.service.service import ExplanationService
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
    service: ExplanationService, items: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]]
) -> list[Response]:
    """Answer a batch of bodies; a response for each, in their order.

    Args:
        service: that answers.
        items: fields of each body, see `wire.read_message`.
        headers: of each; `explain` is "True" for the endpoint of explanations.
    """
    limits = service.deployment.limits
    messages = [
        read_message(item, {k: v for k, v in own.items() if isinstance(v, str)}, _explains(own), limits)
        for item, own in zip(items, headers, strict=True)
    ]
    requests = [(m, r) for m in messages for r in m.requests if isinstance(r, Request)]
    answers = iter(service.answer_all([r for _, r in requests], [m.explain for m, _ in requests]))
    return [message.respond(_replies(message, answers)) for message in messages]


def phrase(status: int) -> str:
    """The words that go with an HTTP status."""
    return HTTPStatus(status).phrase


def _explains(headers: Mapping[str, Any]) -> bool:
    return headers.get("explain") == "True"


def _replies(message: Message, answers: Any) -> list[Reply]:
    return [
        request.body() if isinstance(request, ServiceError) else next(answers) for request in message.requests
    ]
