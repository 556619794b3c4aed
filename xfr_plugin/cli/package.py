"""The command `xfr package`: an archive of the service for TorchServe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.cli.options import (
    ArchitectureOption,
    DecoderOption,
    FmrOption,
    RecognizerOption,
    ThresholdOption,
    names,
)
from xfr_plugin.cli.output import print_lines
from xfr_plugin.errors import InputError

app = typer.Typer()
DEFAULT_STORE = Path("model_store")


@app.command("package", epilog="Example: `xfr package --out model_store && xfr serve`.")
def package_command(
    out: Annotated[Path, typer.Option(help="Folder for archive and configuration.")] = DEFAULT_STORE,
    name: Annotated[str, typer.Option(help="Name of the model, and of its archive.")] = "xfr",
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    architecture: ArchitectureOption = None,
    decoder: DecoderOption = None,
    evidence: Annotated[
        str | None,
        typer.Option(help="File of an evidence network; the one that ships for the recognizer, if left out."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods that callers may ask for, with commas; `all`; quick ones, if left out."),
    ] = None,
    threshold: ThresholdOption = None,
    fmr: FmrOption = None,
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
    workers: Annotated[int, typer.Option(help="Processes; one more than cores is best.")] = 3,
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
    from xfr_plugin.service import read_deployment
    from xfr_plugin.torchserve import (
        ArchivePlan,
        Workers,
        build_archive,
        packaged_deployment,
        write_model_store,
    )

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
        settings["methods"] = names(methods)
    deployment = read_deployment(settings)
    plan = ArchivePlan(
        name,
        deployment,
        Workers(workers=workers, batch_size=batch_size, batch_delay_ms=batch_delay),
        vendor,
    )
    archive = build_archive(plan, out)
    write_model_store(out, name, packaged_deployment(archive), plan.workers)
    print_lines(
        f"{archive} ({archive.stat().st_size / 2**20:.1f} MiB)", f"start it: xfr serve --model-store {out}"
    )
