"""Applications that are asked in this process, and servers that are asked as processes of their own."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

TOKEN = {"Authorization": "Bearer secret"}


def within(app: Any, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Run some requests, with the token, against an application that is open."""

    async def run() -> Any:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=TOKEN) as client:
                return await work(client)

    return asyncio.run(run())


def said_address(process: subprocess.Popen[bytes], said: Path, path: str = "") -> str:
    """The address that a server names once it is ready; `path` is a pattern of what follows host and port."""
    deadline = time.monotonic() + 120
    while "stop:" not in said.read_text():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = re.search(r"http://127\.0\.0\.1:\d+" + path, said.read_text())
    assert found is not None
    return found.group()
