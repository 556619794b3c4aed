"""The application: the service's endpoints, guarded before a body is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xfr_plugin.asgi.batching import Batcher, LocalLane, Post
from xfr_plugin.service.deployment import Workers
from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.limits import MESSAGE_OVERHEAD
from xfr_plugin.service.service import ExplanationService
from xfr_plugin.service.wire import HEADER

__all__ = ["OPEN_PATHS", "make_app", "read_body"]

OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""Paths that anybody may ask: whether the server lives, and whether it can answer."""

_ONCE = (b"host", b"authorization", b"content-type", HEADER.encode())
_BODY_SECONDS = 30.0
_BODIES_AT_ONCE = 256 << 20
_PREDICT = ("/predictions/{name}", "/v1/models/{name}:predict", "/v2/models/{name}/infer")
_EXPLAIN = ("/explanations/{name}", "/v1/models/{name}:explain", "/v2/models/{name}/explain")


def make_app(
    service: ExplanationService | Batcher,
    allow: Callable[[str], bool],
    *,
    name: str = "xfr",
    open_paths: Sequence[str] = OPEN_PATHS,
) -> FastAPI:
    """Make the application. Other pages may be mounted on it; they are guarded like the rest.

    Args:
        service: answers, in this process; or what hands requests to worker processes.
        allow: whether a header `Authorization` is that of a caller.
        name: of the model in paths.
        open_paths: that need no token; those that end with `/` with all below them.
    """
    if isinstance(service, Batcher):
        batcher = service
    else:
        batcher = Batcher([LocalLane(service)], Workers(), service.deployment.limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await batcher.open()
        yield
        await batcher.close()

    closed: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    # a redirect would name the host that the caller named
    app = FastAPI(title="xfr-plugin", lifespan=lifespan, redirect_slashes=False, **closed)
    app.state.batcher = batcher
    asking = _Asking(batcher, name)
    for paths, ask in ((_PREDICT, asking.predict), (_EXPLAIN, asking.explain)):
        for path in paths:
            app.add_api_route(path, ask, methods=["POST"])
    _add_descriptions(app, batcher, name)
    app.add_exception_handler(ServiceError, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_middleware(_Guard, batcher=batcher, allow=allow, open_paths=tuple(open_paths))
    return app


class _Asking:
    """The endpoints; what they hold of bodies at once, all of them together, is bounded."""

    def __init__(self, batcher: Batcher, name: str) -> None:
        self._batcher, self._name = batcher, name
        self._held = 0

    async def predict(self, request: Request) -> Response:
        return await self._ask(request, False)

    async def explain(self, request: Request) -> Response:
        return await self._ask(request, True)

    async def _ask(self, request: Request, explain: bool) -> Response:
        batcher = self._batcher
        if request.path_params["name"] != self._name:
            raise ServiceError("not_found", f"the model here is called {self._name}")
        most = batcher.limits.json_bytes + MESSAGE_OVERHEAD  # what is beyond is not kept
        declared = min(int(request.headers.get("content-length", most)), most)
        if self._held + declared > _BODIES_AT_ONCE:
            raise ServiceError("busy", "too many bodies at once: ask again")
        self._held += declared
        try:
            body = await read_body(request, most)
            headers, start = request.headers, time.monotonic()
            post = Post(body, headers.get("content-type", ""), headers.get(HEADER), explain, start)
            status, data = await batcher.ask(post)
        except asyncio.CancelledError as error:  # it has drained for long enough
            raise ServiceError("busy", "the server stops: ask again") from error
        finally:
            self._held -= declared
        batcher.metrics.seconds += time.monotonic() - start
        batcher.metrics.answered += 1
        return Response(data, status, media_type="application/json")


async def read_body(request: Request, most: int, what: str = "the body") -> bytes:
    """The body, within limit and time; what is beyond the limit is thrown away, so that the answer is read.

    Args:
        request: whose body it is.
        most: bytes.
        what: it is, for the message.

    Raises:
        ServiceError: `too_large` or `too_slow`, or `malformed` where the caller is gone.
    """

    async def read() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > 4 * most:
                break
        if size > most:
            raise ServiceError("too_large", f"{what} has more than {most:,} bytes: make it smaller")
        return b"".join(parts)

    try:
        return await asyncio.wait_for(read(), _BODY_SECONDS)
    except ClientDisconnect as error:  # nobody reads this
        raise ServiceError("malformed", "the body broke off") from error
    except asyncio.TimeoutError as error:
        raise ServiceError("too_slow", f"the body took more than {_BODY_SECONDS:.0f} seconds") from error


def _add_descriptions(app: FastAPI, batcher: Batcher, name: str) -> None:
    async def live() -> dict[str, bool]:
        return {"live": True}

    async def ready() -> JSONResponse:
        return JSONResponse({"ready": batcher.ready}, 200 if batcher.ready else 503)

    async def ping() -> JSONResponse:
        status = "Healthy" if batcher.ready else "Unhealthy"
        return JSONResponse({"status": status}, 200 if batcher.ready else 503)

    async def server() -> dict[str, Any]:
        return {"name": "xfr-plugin", "version": batcher.versions["package"], "extensions": []}

    async def model() -> dict[str, Any]:
        tensors = [{"name": each, "datatype": "BYTES", "shape": [-1]} for each in ("probe", "reference")]
        outputs = [("answer", "BYTES"), ("score", "FP32"), ("match", "BOOL")]
        return {
            **{"name": name, "versions": [batcher.versions["package"]], "platform": "xfr-plugin"},
            **{"ready": batcher.ready, "inputs": tensors, "parameters": batcher.versions},
            "outputs": [{"name": each, "datatype": kind, "shape": [-1]} for each, kind in outputs],
        }

    async def metrics() -> Response:
        return Response(batcher.metrics.text(batcher.queued, int(batcher.ready)), media_type="text/plain")

    paths: dict[str, Callable[..., Awaitable[Any]]] = {
        **{"/v2/health/live": live, "/v2/health/ready": ready, f"/v2/models/{name}/ready": ready},
        **{"/ping": ping, "/v2": server, f"/v2/models/{name}": model, f"/v1/models/{name}": model},
        "/metrics": metrics,
    }
    for path, endpoint in paths.items():
        app.add_api_route(path, endpoint, methods=["GET"], response_model=None)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return Response(error.body().model_dump_json(), error.status, media_type="application/json")


async def _unknown(request: Request, error: Exception) -> Response:
    return await _refused(request, ServiceError("not_found", "there is nothing at this path by this method"))


class _Guard:
    """Refuses, before a body is read, who brings no token, and what proxies and servers may read differently."""

    def __init__(
        self, app: ASGIApp, batcher: Batcher, allow: Callable[[str], bool], open_paths: tuple[str, ...]
    ) -> None:
        self._app, self._batcher, self._allow, self._open = app, batcher, allow, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._batcher.metrics.statuses[message["status"]] += 1
            await send(message)

        error = self._fault(scope)
        if error is None:
            await self._app(scope, receive, counting)
            return
        response = Response(
            error.body().model_dump_json(), error.status, {"connection": "close"}, "application/json"
        )
        if error.code == "unauthorized":
            response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, counting)

    def _fault(self, scope: Scope) -> ServiceError | None:
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        names = [name for name, _ in headers]
        twice = any(names.count(name) > 1 for name in _ONCE)
        if twice or (b"transfer-encoding" in names and b"content-length" in names):
            return ServiceError("malformed", "a header says twice what the request is")
        given = dict(headers)
        path = scope["path"]
        is_open = any(path.startswith(p) if p.endswith("/") else path == p for p in self._open)
        if not is_open and not self._allow(given.get(b"authorization", "")):
            return ServiceError("unauthorized", "bring the token: Authorization: Bearer …")
        return None
