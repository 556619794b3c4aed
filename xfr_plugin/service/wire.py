"""From what a server received to requests, and from answers to what it sends.

A body is one of these:

- JSON: a request (its schema: `xfr schemas`), images as base64;
- form fields (multipart, or the input map of gRPC): `probe` and `reference` as files, the other fields as text;
- an image alone: the probe; the header `x-xfr-request` holds the rest of the request as JSON;
- KServe's, see `service.kserve`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from xfr_plugin.base.documents import RepeatedKeyError, check_keys, read_json
from xfr_plugin.errors import XfrError
from xfr_plugin.service.answers import Reply
from xfr_plugin.service.errors import ErrorBody, ServiceError, as_service_error
from xfr_plugin.service.json_bounds import check_json
from xfr_plugin.service.kserve import is_v1, is_v2, read_v1, read_v2, write_v1, write_v2
from xfr_plugin.service.limits import FIELDS, Limits
from xfr_plugin.service.requests import Request, parse_request

__all__ = ["HEADER", "Message", "Response", "read_message"]

HEADER = "x-xfr-request"
"""Header with the rest of a request whose body is an image."""

_FACES = ("probe", "reference")
_LONGEST_NAME = 64
"""Of a form's fields; a document that is sent as a form by mistake is one long name, and is not to be told again."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Response:
    """What to send: HTTP status, JSON text, and the replies it was made of."""

    status: int
    body: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Message:
    """One received body: the requests in it (or what is wrong with each), and how they want to be answered.

    Attributes:
        requests: in their order; most bodies hold one.
        explain: whether to say why, where a request leaves it open.
        write: from replies to the body to send.
    """

    requests: tuple[Request | ServiceError, ...]
    explain: bool
    write: Callable[[Sequence[Reply]], str]

    def respond(self, replies: Sequence[Reply]) -> Response:
        """Answer the message with one reply for each of its requests.

        The status is 200 if there is any answer, and that of the first error otherwise; that of `busy`, if there is
        one, so that all of it is asked again.
        """
        errors = [reply for reply in replies if isinstance(reply, ErrorBody)]
        status = errors[0].status if len(errors) == len(replies) else 200
        status = next((error.status for error in errors if error.code == "busy"), status)
        return Response(status, self.write(replies), tuple(replies))


def read_message(
    fields: Mapping[str, Any], headers: Mapping[str, str], explain: bool, limits: Limits
) -> Message:
    """Read a body. Never raises for what a caller sent: errors are among the message's requests.

    Args:
        fields: `body`, or the fields of a form; bytes, text, or parsed JSON.
        headers: of the request; names in any case.
        explain: whether the endpoint is the one for explanations.
        limits: of the deployment.
    """
    try:
        return _read(fields, headers, explain, limits)
    except XfrError as error:
        return Message((as_service_error(error),), explain, _one)
    except (ValueError, TypeError, RecursionError):  # what parsers raise for what is no document at all
        problem = ServiceError("malformed", "the body is no valid document: see `xfr schemas` for its form")
        return Message((problem,), explain, _one)


def _read(fields: Mapping[str, Any], headers: Mapping[str, str], explain: bool, limits: Limits) -> Message:
    body = fields.get("body")
    if len(fields) > FIELDS:
        raise ServiceError("too_large", f"the form has {len(fields)} fields, the limit is {FIELDS}")
    if any(len(name) > _LONGEST_NAME for name in fields):
        raise ServiceError("malformed", "a form's fields have short names: see `xfr schemas` for a request's")
    if body is None:
        return Message((parse_request(_from_form(fields, limits)),), explain, _one)
    if isinstance(body, (bytes, bytearray, str)):
        data = body.encode() if isinstance(body, str) else bytes(body)
        if _is_json(data):
            return _read_json(data, explain, limits)
        rest = next((value for name, value in headers.items() if name.lower() == HEADER), None)
        if rest is None:
            raise ServiceError(
                "malformed" if not data else "not_an_image",
                f"the body is neither JSON nor a form; an image alone needs the header {HEADER}",
            )
        document = _object(_sent(rest), HEADER, limits)
        if "probe" in document:
            raise ServiceError("malformed", f"the probe is given twice: by the body, and in {HEADER}")
        return Message((parse_request({**document, "probe": data}),), explain, _one)
    return _read_parsed(body, explain, limits)


def _sent(header: str) -> bytes:
    """A header's bytes: servers read each as a character."""
    return header.encode("latin-1" if max(header, default="") < "\u0100" else "utf-8")


def _is_json(data: bytes) -> bool:
    return data.lstrip(_BOM + b" \t\r\n")[:1] in (b"{", b"[", b'"')


def _read_json(data: bytes, explain: bool, limits: Limits) -> Message:
    data = data.removeprefix(_BOM)
    check_json(data, "the JSON", limits)
    if b'"instances"' in data or b'"inputs"' in data:
        try:
            check_keys(data)
        except RepeatedKeyError as error:
            raise ServiceError("malformed", f"the body: {error}") from None
        document = from_json(data, cache_strings="keys")
        if is_v1(document) or is_v2(document):
            return _read_parsed(document, explain, limits)
    return Message((parse_request(data),), explain, _one)


def _read_parsed(document: Any, explain: bool, limits: Limits) -> Message:
    if is_v1(document) and is_v2(document):
        raise ServiceError("malformed", "the body is of both versions: give either instances or inputs")
    if is_v1(document):
        return Message(_each(read_v1(document, limits)), explain, write_v1(explain))
    if is_v2(document):
        return Message(_each(read_v2(document, limits)), explain, write_v2(document))
    return Message((parse_request(document),), explain, _one)


def _each(documents: Sequence[Any]) -> tuple[Request | ServiceError, ...]:
    """An error in one of several is that one's."""
    return tuple(map(_request_or_error, documents))


def _request_or_error(document: Any) -> Request | ServiceError:
    try:
        return parse_request(document)
    except XfrError as error:
        return as_service_error(error)


def _one(replies: Sequence[Reply]) -> str:
    (reply,) = replies
    return reply.model_dump_json()


def _from_form(fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Fields of a form: faces are files, or JSON; `request` holds JSON; the others are text."""
    document: dict[str, Any] = {}
    if "request" in fields:
        document |= _object(fields["request"], "request", limits)
    for name, value in fields.items():
        if name in document:
            raise ServiceError("malformed", f"{name} is given twice: as a field, and in the field request")
        if name in _FACES:
            document[name] = _face(value, name, limits)
        elif name != "request":
            document[name] = _option(name, value, limits)
    return document


def _face(value: Any, name: str, limits: Limits) -> Any:
    if not isinstance(value, (bytes, bytearray, str)):
        return value
    data = value.encode() if isinstance(value, str) else bytes(value)
    if _is_json(data):
        return _parsed(data, name, limits)
    return value if isinstance(value, str) else data


def _option(name: str, value: Any, limits: Limits) -> Any:
    if not isinstance(value, (bytes, bytearray, str)):
        return value
    data = value.encode() if isinstance(value, str) else bytes(value)
    if name == "returns" and not _is_json(data):
        return [part.strip() for part in data.decode().split(",") if part.strip()]
    if name in ("id", "method", "map_format", "alignment"):
        return data.decode()
    return _parsed(data.lower() if name == "explain" else data, name, limits)


def _object(value: Any, name: str, limits: Limits) -> dict[str, Any]:
    parsed = _parsed(value, name, limits) if isinstance(value, (bytes, bytearray, str)) else value
    if not isinstance(parsed, dict):
        raise ServiceError("malformed", f"{name}: must be a JSON object")
    return parsed


def _parsed(data: bytes | bytearray | str, name: str, limits: Limits) -> Any:
    data = data.encode() if isinstance(data, str) else bytes(data)
    data = data.removeprefix(_BOM)
    check_json(data, name, limits)
    try:
        return read_json(data)
    except RepeatedKeyError as error:
        raise ServiceError("malformed", f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ServiceError("malformed", f"{name}: no valid JSON") from error
