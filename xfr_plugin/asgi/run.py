"""A server process: the application behind uvicorn, with a folder for its token, until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn

from xfr_plugin.asgi.app import make_app
from xfr_plugin.asgi.batching import Batcher
from xfr_plugin.asgi.connections import Patient
from xfr_plugin.asgi.store import module_folders, read_store
from xfr_plugin.asgi.tokens import Tokens, write_token
from xfr_plugin.asgi.worker import ProcessLane
from xfr_plugin.base.run_folder import lock_folder
from xfr_plugin.errors import InputError

__all__ = ["listening_at", "serve", "until_signal"]

_DRAINING_SECONDS = 30
_KEPT_SECONDS = 20


def serve(
    store: Path,
    run_dir: Path,
    host: str,
    port: int,
    said: Callable[[str, Path], Any],
    workers: int | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; what is being answered then is answered.

    Args:
        store: see `store.read_store`.
        run_dir: for the token; closed to other users, and to other servers.
        host: to listen at.
        port: to listen at; 0 for any free one.
        said: called with address and token file, once all workers are ready.
        workers: processes, if not as many as the store says.

    Raises:
        InputError: another server runs in the folder, or the port is taken.
        XfrError: the deployment does not work.
    """
    lock = lock_folder(run_dir)
    key_file = run_dir.resolve() / "key_file.json"
    with TemporaryDirectory(prefix="xfr-serve-") as scratch, listening_at(host, port) as listening:
        deployment, found = read_store(store, Path(scratch))
        count = workers or found.workers
        folders = module_folders(deployment, Path(scratch))
        lanes = [ProcessLane(deployment, folders) for _ in range(count)]
        write_token(key_file)
        try:
            app = make_app(Batcher(lanes, found, deployment.limits), Tokens(key_file).allow)
            name = f"[{host}]" if ":" in host else host
            url = f"http://{name}:{listening.getsockname()[1]}"
            with suppress(asyncio.CancelledError):  # a signal while it started
                asyncio.run(until_signal(app, listening, lambda: said(url, key_file)))
        finally:
            key_file.unlink(missing_ok=True)
            for lane in lanes:
                lane.stop()
    os.close(lock)


async def until_signal(app: Any, listening: socket.socket, started: Callable[[], Any]) -> None:
    """Serve an application at a socket until SIGINT, SIGTERM or SIGHUP; `started` is called once it is open."""
    config = uvicorn.Config(
        app,
        http=Patient,
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="error",  # requests that are none could fill the log
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEPT_SECONDS,
        timeout_graceful_shutdown=_DRAINING_SECONDS,
    )
    server = uvicorn.Server(config)
    starting = asyncio.current_task()
    assert starting is not None
    _on_signals(starting.cancel)
    async with app.router.lifespan_context(app):  # here, so that its errors are ours
        started()
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        _on_signals(lambda: setattr(server, "should_exit", True))  # in the place of uvicorn's own
        await serving


def _on_signals(act: Callable[[], Any]) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, act)


def listening_at(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        InputError: the port is taken.
    """
    try:
        listening = socket.create_server((host, port), backlog=1024, family=_family(host))
    except OSError as error:
        cause = (error.strerror or str(error)).partition(" (while")[0]  # Python adds the address
        raise InputError(
            f"cannot listen at {host}:{port}: {cause}; choose another --port or --host"
        ) from error
    # connections inherit it; else the body of an answer waits 40 ms for its head to be acknowledged
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
