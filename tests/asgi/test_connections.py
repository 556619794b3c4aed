"""Connections of clients that keep a server waiting, or make it work for nothing: they end, and nothing is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="FastAPI is not installed")

import uvicorn
from uvicorn.server import ServerState

from xfr_plugin.asgi import connections
from xfr_plugin.asgi.connections import Patient

LARGE = 8 << 20
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /reads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, or after it has read the body, or what nobody wants to read."""
    while scope["path"] == "/reads" and (await receive()).get("more_body"):
        pass
    body = bytes(LARGE if scope["path"] == "/large" else 2)
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def served(work: Callable[[int, ServerState], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        config = uvicorn.Config(application, http=Patient, lifespan="off", log_level="error")
        config.load()
        state = ServerState()

        def protocol() -> Patient:
            return Patient(config=config, server_state=state, app_state={})

        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        async with server:
            return await work(server.sockets[0].getsockname()[1], state)

    return asyncio.run(run())


WAITS = {
    "nothing": (b"", b""),
    "half a head": (b"GET / HT", b""),
    "a head that never ends": (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
    "half a head after a request": (GET + b"GET / HT", b""),
    "a second head that never ends": (GET + b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
    "a body that nobody waits for": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", b"a"),
    "chunks that nobody waits for": (CHUNKED.replace(b"/reads", b"/"), b"1\r\na\r\n"),
    "an answer that is not read": (GET.replace(b"/", b"/large", 1), b""),
    "answers that are not read": (2 * GET.replace(b"/", b"/large", 1), b""),
}


@pytest.mark.parametrize("kind", sorted(WAITS))
def test_who_keeps_the_server_waiting_is_left(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    monkeypatch.setattr(connections, "_SECONDS", 0.3)
    sent, more = WAITS[kind]

    async def work(port: int, state: ServerState) -> int:
        async with connected(port) as (_, writer):
            writer.write(sent)
            await asyncio.sleep(0.1)
            assert len(state.connections) == 1
            for _ in range(40):
                if not state.connections:
                    break
                await asyncio.sleep(0.1)
                writer.write(more)
            return len(state.connections)

    assert served(work) == 0


def test_who_is_slow_with_a_body_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a body may take, the application says."""
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.1)
    monkeypatch.setattr(connections, "_SECONDS", 0.1)

    async def work(port: int, state: ServerState) -> bytes:
        async with connected(port) as (reader, writer):
            writer.write(CHUNKED)
            for _ in range(8):
                await asyncio.sleep(0.1)
                writer.write(b"1\r\na\r\n")
            writer.write(b"0\r\n\r\n")
            return await reader.readline()

    assert b" 200 " in served(work)


@pytest.mark.parametrize("path", [b"/", b"/reads", b"/large"])
@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_what_is_no_request_is_told_once_and_not_logged(
    path: bytes, pause: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the application has answered, and after it has: anybody could fill the log otherwise."""

    async def work(port: int, state: ServerState) -> bytes:
        async with connected(port) as (reader, writer):
            writer.write(CHUNKED.replace(b"/reads", path))
            await asyncio.sleep(pause)
            writer.write(b"no length\r\n")
            return await reader.read()

    with caplog.at_level(logging.WARNING):
        found = served(work)
    assert found.count(b"HTTP/1.1 ") == 1
    assert not caplog.records


def test_a_body_in_crumbs_is_refused() -> None:
    """A chunk of a byte takes as long as a large one; whole ones, and a few small ones, are taken."""

    async def asked(port: int, *chunks: bytes) -> bytes:
        async with connected(port) as (reader, writer):
            body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
            writer.write(CHUNKED + body + b"0\r\n\r\n")
            return await reader.readline()

    async def work(port: int, state: ServerState) -> list[bytes]:
        return [
            await asked(port, *[b"a"] * 900),
            await asked(port, *[bytes(512)] * 5000),
            await asked(port, *[b"a"] * 5000),
        ]

    statuses = [line.split()[1] for line in served(work)]
    assert statuses == [b"200", b"200", b"400"]
