"""A client of the service: typed answers, retries, timeouts.

::

    with Client("http://127.0.0.1:8080", token=…) as client:
        answer = client.explain(Path("a.jpg").read_bytes(), Path("b.jpg").read_bytes(), deadline_ms=1000)
        print(answer.decision.match, answer.explanation.words)
"""

from __future__ import annotations

import base64
import json
import os
import random
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import urllib3
from pydantic import ValidationError

from xfr_plugin.errors import InputError, XfrError
from xfr_plugin.service.answers import Answer, reply_from_json
from xfr_plugin.service.errors import ErrorBody, ServiceError

__all__ = ["Client", "ClientError", "Face", "read_token"]

Face: TypeAlias = bytes | Sequence[float]
"""A face: the bytes of an image file, or an embedding."""

_BROKEN = (500, 502, 507)
_BUSY = (429, 503)
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 1.0


class ClientError(XfrError):
    """The server cannot be reached, refuses the token, or does not answer as the service does."""


class Client:
    """Asks a server of the service. Safe to use from several threads.

    Questions change nothing, so one is asked again: once, when a connection breaks or a worker died with it (500,
    502, 507), and ever less often while the server is busy (429, 503), which TorchServe is with photographs that are
    slow beside others; not when it has answered, nor after a timeout. Every question has an id, and an answer of
    another id is refused.

    Args:
        url: of the server, without a path.
        token: for inference, see `read_token`.
        model: name of the archive.
        timeout: seconds for an answer, and for which a busy server is asked again.
        retries: how often to ask again after what broke, at most.
        connections: kept open at most; for as many threads.

    Raises:
        InputError: the URL is none of HTTP, or a number makes no sense.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        model: str = "xfr",
        timeout: float = 30.0,
        retries: int = 1,
        connections: int = 8,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"a server's URL starts with http:// or https://, got {url!r}")
        if not timeout > 0 or retries < 0 or connections < 1:
            raise InputError("timeout is above 0 seconds, retries from 0 on, and connections from 1 on")
        self.url = url.rstrip("/")
        self.model = model
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        again = urllib3.Retry(
            total=retries,
            read=0,  # the server may still be at it
            connect=retries,
            other=retries,
            status=retries,
            status_forcelist=_BROKEN,
            allowed_methods=None,
            backoff_factor=0.2,
            raise_on_status=False,
        )
        self._timeout, self._retries = timeout, retries
        limits = urllib3.Timeout(connect=min(timeout, 10.0), read=timeout)
        self._pool = urllib3.PoolManager(retries=again, timeout=limits, maxsize=connections)

    def verify(self, probe: Face, reference: Face, **options: Any) -> Answer:
        """Decide whether two faces are one person's.

        Args:
            probe, reference: see `Face`.
            **options: other fields of a request, see `service.Request`.

        Raises:
            InputError: a face is neither bytes nor numbers, or an option is nothing for JSON.
            ServiceError: the service's own answer: what is wrong with the request.
            ClientError: there is no answer of the service.
        """
        document: dict[str, Any] = {"probe": _face(probe), "reference": _face(reference), **options}
        return self._ask("predictions", document)

    def explain(self, probe: Face, reference: Face, **options: Any) -> Answer:
        """Decide, and say why; arguments and errors as for `verify`."""
        document: dict[str, Any] = {"probe": _face(probe), "reference": _face(reference), **options}
        return self._ask("explanations", document)

    def search(
        self, probe: Face, gallery: Sequence[Sequence[float]], explain: bool = False, **options: Any
    ) -> Answer:
        """Find the best candidates of a gallery of embeddings; `ids` and `top` as in `service.Gallery`."""
        chosen: dict[str, Any] = {name: options.pop(name) for name in ("ids", "top") if name in options}
        stored: dict[str, Any] = {
            "embeddings": [_numbers(row, "a gallery holds embeddings") for row in gallery],
            **chosen,
        }
        endpoint = "explanations" if explain else "predictions"
        document: dict[str, Any] = {"probe": _face(probe), "gallery": stored, **options}
        return self._ask(endpoint, document)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, endpoint: str, document: dict[str, Any]) -> Answer:
        document = {"id": secrets.token_hex(8), **document}
        url, body = f"{self.url}/{endpoint}/{self.model}", _text(document)
        end, wait = time.monotonic() + self._timeout, _SHORTEST_WAIT
        try:
            while (
                response := self._post(url, body, self._retries)
            ).status in _BUSY and time.monotonic() + wait < end:
                time.sleep(wait * random.uniform(0.5, 1.0))  # not all at once
                wait = min(2 * wait, _LONGEST_WAIT)
        except urllib3.exceptions.HTTPError as error:
            if isinstance(getattr(error, "reason", None), urllib3.exceptions.ReadTimeoutError):
                raise ClientError(f"{self.url} did not answer in time") from error
            raise ClientError(
                f"{self.url} cannot be reached ({_cause(error)}): is the server running?"
            ) from error
        try:
            reply = reply_from_json(response.data)
        except ValidationError as error:
            raise ClientError(_refusal(response.status, response.data)) from error
        unread = isinstance(reply, ErrorBody) and reply.id is None  # the server did not get as far as the id
        if reply.id != document["id"] and not unread:
            raise ClientError("the answer belongs to another request: do not use it")
        if isinstance(reply, ErrorBody):
            raise ServiceError(reply.code, reply.message, reply.problems)
        return reply

    def _post(self, url: str, body: bytes, left: int) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request("POST", url, body=body, headers=self._headers)
        except urllib3.exceptions.MaxRetryError as error:
            broke = isinstance(error.reason, urllib3.exceptions.ProtocolError)  # and did not time out
            if not broke or left == 0:
                raise
        return self._post(url, body, left - 1)


def read_token(path: Path, kind: str = "inference") -> str:
    """Read a token from the key file that `xfr serve` names.

    Raises:
        InputError: it cannot be read, or holds no such token.
    """
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))[kind]["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no {kind} token: name the key file that `xfr serve` printed"
        ) from error


def _face(face: Face) -> Any:
    if isinstance(face, (bytes, bytearray, memoryview)):
        return base64.b64encode(face).decode()
    return _numbers(
        face, "a face is the bytes of an image file, as Path(…).read_bytes() gives them, or an embedding"
    )


def _numbers(values: Any, what: str) -> list[float]:
    if not isinstance(values, (str, os.PathLike)):
        try:
            return [float(value) for value in values]
        except (TypeError, ValueError):
            pass
    shape = getattr(values, "shape", None)
    got = type(values).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
    raise InputError(f"{what}: numbers in a row; got {got}")


def _text(document: dict[str, Any]) -> bytes:
    try:
        return json.dumps(document).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"a request holds what JSON can, numbers of numpy as float(…): {error}") from error


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    """What went wrong beneath: refused, unknown name, a certificate."""
    inner: object = getattr(error, "reason", None) or error
    return str(inner).rpartition(": ")[2][:200]


def _refusal(status: int, data: bytes) -> str:
    """What TorchServe itself said, if it was that."""
    try:
        message = str(json.loads(data)["message"])[:200]
    except (ValueError, KeyError, TypeError):
        message = "no answer of the service"
        if status == 413:
            message = "the request is larger than the server takes: send smaller images"
    return f"the server answered {status}: {message}"
