"""The command `xfr serve`: TorchServe with an archive of the service."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from xfr_plugin.cli.output import print_lines, terminal
from xfr_plugin.cli.package import DEFAULT_STORE
from xfr_plugin.errors import InputError

app = typer.Typer()


@app.command("serve", epilog="Example: `xfr serve --model-store model_store`.")
def serve_command(
    model_store: Annotated[Path, typer.Option(help="Folder that `xfr package` wrote.")] = DEFAULT_STORE,
    host: Annotated[str, typer.Option(help="Where to listen for requests.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="HTTP port; the next two are for management and metrics. 0: any free ones.")
    ] = 8080,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; the next is for management.")] = 7070,
    run_dir: Annotated[Path, typer.Option(help="Folder for tokens and logs, closed to others.")] = Path(
        "xfr-run"
    ),
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it is healthy.")] = 300,
) -> None:
    """Serve an archive until Ctrl-C or SIGTERM: starts TorchServe, and waits until it is healthy."""
    from xfr_plugin.torchserve.process import Ports, free_ports, start_server

    ports = free_ports() if port == 0 else Ports(port, port + 1, port + 2, grpc_port, grpc_port + 1)
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    console = terminal(stderr=True)
    try:
        with start_server(model_store, run_dir, host=host, ports=ports) as server:
            with console.status("starting …"):
                server.wait(timeout)
            print_lines(
                f"ready:  {server.url} (gRPC {host}:{ports.grpc}, management {server.management_url})",
                f"token:  {server.key_file} (inference)",
                f"logs:   {server.run_dir / 'logs'}",
                f"try it: {_curl(server.url, server.model, server.key_file)}",
                "stop:   Ctrl-C",
            )
            while server.process.poll() is None:
                time.sleep(0.2)
            raise InputError(f"the server stopped by itself: see {server.run_dir}")
    except KeyboardInterrupt:
        print_lines("stopped")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop; further signals must not interrupt that, or the tokens would stay behind."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _curl(url: str, model: str, key_file: Path) -> str:
    """A line that works as it stands, but for the two photographs."""
    read = f"import json; print(json.load(open('{key_file}'))['inference']['key'])"
    return (
        f'curl -H "Authorization: Bearer $(python3 -c "{read}")" '
        f"-F probe=@a.jpg -F reference=@b.jpg {url}/explanations/{model}"
    )
