"""A server process: the application behind uvicorn, with a folder for its token, until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
import yaml
from pydantic import ValidationError
from uvicorn.protocols.http.h11_impl import H11Protocol

from xfr_plugin.asgi.app import make_app
from xfr_plugin.asgi.batching import Batcher
from xfr_plugin.asgi.tokens import Tokens, write_token
from xfr_plugin.asgi.worker import ProcessLane
from xfr_plugin.base.run_folder import lock_folder
from xfr_plugin.errors import InputError, first_fault
from xfr_plugin.recognition.loading import module_of
from xfr_plugin.service.deployment import Deployment, Workers
from xfr_plugin.service.serving import settings_of

__all__ = ["listening_at", "read_store", "serve", "until_signal"]

_DRAINING_SECONDS = 30
_HEADER_SECONDS = 10.0
_KEPT_SECONDS = 20
_CODE = (".py", ".pyi", ".so", ".pyd")
_WORKER_KEYS = {"minWorkers": "workers", "batchSize": "batch_size", "maxBatchDelay": "batch_delay_ms"}


def read_store(store: Path, scratch: Path) -> tuple[Deployment, Workers]:
    """Deployment and workers of what `xfr package` wrote; the defaults, if there is no such folder.

    Weights, model files, cards and modules of the user's that are in the archive only are unpacked to `scratch`.

    Raises:
        InputError: a setting makes no sense.
    """
    file = store / "model-config.yaml"
    if not file.is_file():
        return Deployment(), Workers()
    try:
        config = dict(yaml.safe_load(file.read_text(encoding="utf-8")))
        numbers = {ours: config[theirs] for theirs, ours in _WORKER_KEYS.items() if theirs in config}
        workers = Workers.model_validate(numbers)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else "it cannot be read"
        raise InputError(f"{file}: {fault}") from error
    archives = list(store.glob("*.mar"))
    for archive in archives:
        _unpack(archive, scratch, lambda name: "/" not in name and not name.endswith(_CODE))
    deployment = settings_of(config, str(scratch))
    module = module_of(deployment.recognizer)
    if module is not None:
        for archive in archives:
            _unpack(archive, scratch, lambda name: name == f"{module}.py" or name.startswith(f"{module}/"))
    return deployment, workers


def _unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder, [name for name in packed.namelist() if wanted(name)])


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
        store: see `read_store`.
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
        folders = _module_folders(deployment, scratch)
        lanes = [ProcessLane(deployment, found.response_timeout_s, folders) for _ in range(count)]
        write_token(key_file)
        try:
            app = make_app(Batcher(lanes, found, deployment.limits), Tokens(key_file).allow)
            url = f"http://{host}:{listening.getsockname()[1]}"
            with suppress(asyncio.CancelledError):  # a signal while it started
                asyncio.run(until_signal(app, listening, lambda: said(url, key_file)))
        finally:
            key_file.unlink(missing_ok=True)
            for lane in lanes:
                lane.stop()
    os.close(lock)


def _module_folders(deployment: Deployment, scratch: str) -> tuple[str, ...]:
    """Where a module of the user's is looked for first: as it was packaged, then where the server was started."""
    return () if module_of(deployment.recognizer) is None else (scratch, os.getcwd())


async def until_signal(app: Any, listening: socket.socket, started: Callable[[], Any]) -> None:
    """Serve an application at a socket until SIGINT, SIGTERM or SIGHUP; `started` is called once it is open."""
    config = uvicorn.Config(
        app,
        http=_Patient,
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="error",  # requests that are none could fill the log
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEPT_SECONDS,
        timeout_graceful_shutdown=_DRAINING_SECONDS,
        h11_max_incomplete_event_size=64 << 10,
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


class _Patient(H11Protocol):
    """Closes connections that do not send the head of a request in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.loop.call_later(_HEADER_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()
