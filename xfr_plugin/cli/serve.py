"""The command `xfr serve`: the service behind TorchServe or FastAPI."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from xfr_plugin.base.files import read_text
from xfr_plugin.base.run_folder import check_running
from xfr_plugin.cli.output import print_lines, terminal
from xfr_plugin.cli.package import DEFAULT_STORE
from xfr_plugin.errors import InputError

app = typer.Typer()


class Engine(str, Enum):
    """What serves."""

    torchserve = "torchserve"
    fastapi = "fastapi"


_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end a server; the last one when its terminal is closed."""


@app.command("serve", epilog="Example: `xfr serve --model-store model_store`.")
def serve_command(
    model_store: Annotated[Path, typer.Option(help="Folder that `xfr package` wrote.")] = DEFAULT_STORE,
    engine: Annotated[
        Engine, typer.Option(help="What serves: TorchServe, or FastAPI, which needs no archive and no Java.")
    ] = Engine.torchserve,
    host: Annotated[str, typer.Option(help="Where to listen for requests.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="HTTP port; with TorchServe the next but one is for metrics. 0: any free ones.",
        ),
    ] = 8080,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65534, help="gRPC port of TorchServe; the next is for its management.")
    ] = 7070,
    run_dir: Annotated[Path, typer.Option(help="Folder for tokens and logs, closed to others.")] = Path(
        "xfr-run"
    ),
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until TorchServe is healthy.")] = 300,
    rotate: Annotated[
        bool,
        typer.Option("--rotate-token", help="Give the server that runs in --run-dir a new token, and end."),
    ] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM: starts a server, waits until it is healthy, lets it finish in the end."""
    if rotate:
        print_lines(f"token:  {_rotated(run_dir)}")
        return
    _warn_of(host)
    if engine is Engine.fastapi:
        _serve_by_fastapi(model_store, host, port, run_dir)
    else:
        _serve_by_torchserve(model_store, host, port, grpc_port, run_dir, timeout)


def _rotated(run_dir: Path) -> Path:
    """Which server it is, its key file tells: TorchServe's holds a key for making tokens."""
    check_running(run_dir)
    key_file = run_dir / "key_file.json"
    text = read_text(key_file, "key file of a running server")
    if '"API"' in text:
        from xfr_plugin.torchserve.process import rotate_token

        rotate_token(run_dir)
    else:
        from xfr_plugin.asgi.tokens import write_token

        write_token(key_file)
    return key_file


def _serve_by_fastapi(model_store: Path, host: str, port: int, run_dir: Path) -> None:
    try:
        from xfr_plugin.asgi.run import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "python_multipart", "uvicorn", "yaml"):
            raise
        raise InputError(f"{error.name} is not installed: pip install 'xfr-plugin[web]'") from error

    is_packaged = (model_store / "model-config.yaml").is_file()
    if not is_packaged and model_store != DEFAULT_STORE:
        raise InputError(
            f"{model_store} holds no model-config.yaml: `xfr package --out` writes one; without --model-store the "
            "defaults are served"
        )

    def said(url: str, key_file: Path) -> None:
        print_lines(
            f"ready:  {url}",
            f"serves: {model_store if is_packaged else f'the defaults, as there is no {model_store}'}",
            f"token:  {key_file}",
            f"try it: {_curl(url, 'xfr', key_file)}",
            "stop:   Ctrl-C",
        )

    with _until_signal():  # until the server has handlers of its own
        serve(model_store, run_dir, host, port, said)


def _serve_by_torchserve(
    model_store: Path, host: str, port: int, grpc_port: int, run_dir: Path, timeout: float
) -> None:
    from xfr_plugin.torchserve.process import Ports, free_ports, start_server

    ports = free_ports() if port == 0 else Ports(port, port + 2, grpc_port, grpc_port + 1)
    console = terminal(stderr=True)
    with _until_signal(), start_server(model_store, run_dir, host=host, ports=ports) as server:
        with console.status("starting …"):
            server.wait(timeout)
        print_lines(
            f"ready:  {server.url} (gRPC {host}:{ports.grpc})",
            f"token:  {server.key_file} (inference)",
            f"logs:   {server.run_dir / 'logs'}",
            f"try it: {_curl(server.url, server.model, server.key_file)}",
            "stop:   Ctrl-C",
        )
        try:
            while server.process.poll() is None:
                time.sleep(0.2)
        except KeyboardInterrupt:
            server.drain()
            raise
        raise InputError(f"the server stopped by itself: see {server.run_dir}")


@contextmanager
def _until_signal() -> Iterator[None]:
    """The block ends at a signal, and says so when it has cleaned up."""
    previous = {number: signal.signal(number, _interrupt) for number in _ENDING}
    try:
        with suppress(KeyboardInterrupt):
            yield
        print_lines("stopped")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop; further signals must not interrupt that, or the tokens would stay behind."""
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _warn_of(host: str) -> None:
    if host not in ("127.0.0.1", "localhost", "::1"):
        typer.echo(
            f"xfr: warning: {host} is open to others, and token and faces travel unencrypted: put a proxy with "
            "TLS before it (docs/serving.md)",
            err=True,
        )


def _curl(url: str, model: str, key_file: Path) -> str:
    """A line that works as it stands, but for the two photographs."""
    read = f"import json; print(json.load(open('{key_file}'))['inference']['key'])"
    return (
        f'curl -H "Authorization: Bearer $(python3 -c "{read}")" '
        f"-F probe=@a.jpg -F reference=@b.jpg {url}/explanations/{model}"
    )
