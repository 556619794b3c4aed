"""The commands `xfr package`, `xfr serve` and `xfr schemas`."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from xfr_plugin.base.files import atomic_path
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER

__all__ = ["package_command", "register", "schemas_command", "serve_command"]

_STORE = Path("model_store")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("package", epilog="Example: `xfr package --out model_store && xfr serve`.")(package_command)
    app.command("serve", epilog="Example: `xfr serve --model-store model_store`.")(serve_command)
    app.command("schemas", epilog="Example: `xfr schemas --out docs/schemas`.")(schemas_command)


def package_command(
    out: Annotated[Path, typer.Option(help="Folder for archive and configuration.")] = _STORE,
    name: Annotated[str, typer.Option(help="Name of the model, and of its archive.")] = "xfr",
    recognizer: Annotated[
        str, typer.Option("--recognizer", "-r", help="Name, or weight file.")
    ] = DEFAULT_RECOGNIZER,
    architecture: Annotated[str | None, typer.Option(help="Architecture of a weight file.")] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Name or file; the recognizer's own, if left out.")
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option(help="File of an evidence network; the one that ships for the recognizer, if left out."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods that callers may ask for, with commas; `all`; quick ones, if left out."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Decide at this cosine.")] = None,
    fmr: Annotated[
        float | None, typer.Option(help="Decide at the threshold calibrated for this false match rate.")
    ] = None,
    own_threshold: Annotated[
        bool, typer.Option("--own-threshold", help="Callers may not bring a threshold or FMR.")
    ] = False,
    reconstructions: Annotated[
        bool,
        typer.Option("--allow-reconstructions", help="Return likenesses decoded from embeddings, if asked."),
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--allow-embeddings", help="Return embeddings of images, if asked: for enrolment.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes; one for each core is best.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Requests that a worker takes at once, at most.")] = 4,
    batch_delay: Annotated[int, typer.Option(help="Milliseconds that it waits for more of them.")] = 1,
    vendor: Annotated[
        bool,
        typer.Option(
            help="Copy the packages that TorchServe does not bring: serves where only TorchServe is."
        ),
    ] = True,
) -> None:
    """Build a TorchServe archive of the service, and its configuration."""
    from xfr_plugin.service import read_deployment  # these import much
    from xfr_plugin.torchserve import ArchivePlan, Workers, build_archive, write_model_store

    if min(workers, batch_size, batch_delay) < 1:
        raise InputError("--workers, --batch-size and --batch-delay must be at least 1")
    settings: dict[str, Any] = {
        "recognizer": recognizer,
        "architecture": architecture,
        "decoder": decoder,
        "evidence": evidence,
        "threshold": threshold,
        "fmr": fmr,
        "callers_choose_threshold": not own_threshold,
        "reconstructions": reconstructions,
        "embeddings": embeddings,
    }
    if methods is not None:
        named = [part.strip() for part in methods.split(",")]
        settings["methods"] = "all" if methods == "all" else tuple(named)
    deployment = read_deployment(settings)
    plan = ArchivePlan(
        name,
        deployment,
        Workers(workers=workers, batch_size=batch_size, batch_delay_ms=batch_delay),
        vendor,
    )
    archive = build_archive(plan, out)
    write_model_store(out, name, deployment, plan.workers)
    typer.echo(
        f"{archive} ({archive.stat().st_size / 2**20:.1f} MiB)\nstart it: xfr serve --model-store {out}"
    )


def serve_command(
    model_store: Annotated[Path, typer.Option(help="Folder that `xfr package` wrote.")] = _STORE,
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
    console = Console(stderr=True)
    try:
        with start_server(model_store, run_dir, host=host, ports=ports) as server:
            with console.status("starting …"):
                server.wait(timeout)
            typer.echo(
                f"ready:  {server.url} (gRPC {host}:{ports.grpc}, management {server.management_url})\n"
                f"token:  {server.key_file} (inference)\n"
                f"logs:   {server.run_dir / 'logs'}\n"
                f"try it: {_curl(server.url, server.model, server.key_file)}\n"
                "stop:   Ctrl-C"
            )
            while server.process.poll() is None:
                time.sleep(0.2)
            raise InputError(f"the server stopped by itself: see {server.run_dir}")
    except KeyboardInterrupt:
        typer.echo("stopped")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def schemas_command(
    out: Annotated[Path, typer.Option(help="Folder for request.json, answer.json and error.json.")] = Path(
        "schemas"
    ),
) -> None:
    """Write the JSON schemas of the service's requests, answers and errors."""
    from xfr_plugin.service import json_schemas

    out.mkdir(parents=True, exist_ok=True)
    for name, schema in json_schemas().items():
        with atomic_path(out / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
    typer.echo(str(out))


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
