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
import psutil

TOKEN = {"Authorization": "Bearer secret"}


def within(app: Any, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Run some requests, with the token, against an application that is open."""

    async def run() -> Any:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=TOKEN) as client:
                return await work(client)

    return asyncio.run(run())


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not after {seconds} seconds"
        time.sleep(0.02)


def until_at_work(process: psutil.Process) -> None:
    """Wait until a process has computed for a fifth of a second more: what it was asked is under way."""

    def computed() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before = computed()
    until(lambda: computed() > before + 0.2)


def said_address(process: subprocess.Popen[bytes], said: Path, path: str = "") -> str:
    """The address that a server names once it is ready; `path` is a pattern of what follows host and port."""

    def ready() -> bool:
        assert process.poll() is None, said.read_text()
        return "stop:" in said.read_text()

    until(ready, 300)
    found = re.search(r"http://127\.0\.0\.1:\d+" + path, said.read_text())
    assert found is not None
    return found.group()
