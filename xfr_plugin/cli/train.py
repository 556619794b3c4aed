"""The commands of `xfr train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.table import Table

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import check_targets
from xfr_plugin.cli.options import DeviceOption, RecognizerOption, SeedOption
from xfr_plugin.cli.output import print_lines, terminal

if TYPE_CHECKING:
    from xfr_plugin.training.engine import Outcome

app = typer.Typer(
    help="Train the embedded models, or your own. A training that was interrupted continues where it was.",
    no_args_is_help=True,
)

_FACES = Path("../shared/data/faces/lfw112")

ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML or JSON file; the options below override it.")
]
Run: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder for checkpoint, log, curves and best weights.")
]
Faces: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of aligned faces, one subfolder a person.")
]
FacesFolder: TypeAlias = Annotated[
    Path, typer.Option(help="Folder of aligned faces, one subfolder a person.")
]
Recognizer: TypeAlias = Annotated[
    str | None, typer.Option("--recognizer", "-r", help="Name or weight file of the recognizer.")
]
Device: TypeAlias = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")]
Epochs: TypeAlias = Annotated[int | None, typer.Option(help="Number of validations.")]
Threads: TypeAlias = Annotated[int | None, typer.Option(help="CPU threads.")]


@app.command()
def recognizer(
    config: ConfigFile = None,
    run: Run = None,
    faces: Faces = None,
    teacher: Annotated[str | None, typer.Option(help="Name or weight file of the teacher.")] = None,
    publish: Annotated[
        Path | None,
        typer.Option(
            help="Then calibrate on LFW's protocol and write this .safetensors file; its stem is the name."
        ),
    ] = None,
    device: Device = None,
    seed: Seed = None,
    epochs: Epochs = None,
    threads: Threads = None,
) -> None:
    """Distil a compact recognizer from a larger one."""
    from xfr_plugin.training.config import load_config
    from xfr_plugin.training.recognizer import RecognizerConfig, train_recognizer

    given: dict[str, Any] = {"run": run or (None if config else Path("runs/recognizer")), "faces": faces}
    given |= {"teacher": teacher, "device": device, "seed": seed, "epochs": epochs, "threads": threads}
    settings = load_config(RecognizerConfig, config, given)
    check_targets([publish] if publish else [], [settings.teacher])
    _report(train_recognizer(settings), settings.run)
    if publish:
        from xfr_plugin.training.publish import publish_recognizer

        figures = publish_recognizer(settings, publish, publish.stem).figures
        print_lines(str({name: value for name, value in figures.items() if isinstance(value, float)}))


@app.command()
def aligner(
    config: ConfigFile = None,
    run: Run = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with lfw250/, labels.csv and the people files.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the aligner (.safetensors).")] = None,
    device: Device = None,
    seed: Seed = None,
    epochs: Epochs = None,
    threads: Threads = None,
) -> None:
    """Train the aligner: five landmarks and a face score from a box of the face finder."""
    from xfr_plugin.training.aligner import AlignerConfig, train_aligner
    from xfr_plugin.training.config import load_config

    given: dict[str, Any] = {"run": run, "data": data, "out": out, "device": device, "seed": seed}
    settings = load_config(AlignerConfig, config, {**given, "epochs": epochs, "threads": threads})
    check_targets([settings.out] if settings.out else [], [])
    _report(train_aligner(settings), settings.run)


@app.command()
def finder(
    config: ConfigFile = None,
    run: Run = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with lfw250/, labels.csv and the people files.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the finder (.safetensors).")] = None,
    device: Device = None,
    seed: Seed = None,
    epochs: Epochs = None,
    threads: Threads = None,
) -> None:
    """Train the face finder: where faces are in a photo, how large, and how they are turned."""
    from xfr_plugin.training.config import load_config
    from xfr_plugin.training.finder import FinderConfig, train_finder

    given: dict[str, Any] = {"run": run, "data": data, "out": out, "device": device, "seed": seed}
    settings = load_config(FinderConfig, config, {**given, "epochs": epochs, "threads": threads})
    check_targets([settings.out] if settings.out else [], [])
    _report(train_finder(settings), settings.run)


@app.command()
def outlines(
    config: ConfigFile = None,
    run: Run = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with lfw112/, mesh468_aligned.npz, regions.json and the people files."),
    ] = None,
    publish: Annotated[
        Path | None, typer.Option(help="Where to write the outline finder (.safetensors).")
    ] = None,
    device: Device = None,
    seed: Seed = None,
    epochs: Epochs = None,
    threads: Threads = None,
) -> None:
    """Train the outline finder: the named regions of each aligned face."""
    from xfr_plugin.training.config import load_config
    from xfr_plugin.training.outlines import OutlinesConfig, train_outlines

    given: dict[str, Any] = {"run": run, "data": data, "out": publish, "device": device, "seed": seed}
    settings = load_config(OutlinesConfig, config, {**given, "epochs": epochs, "threads": threads})
    check_targets([settings.out] if settings.out else [], [])
    _report(train_outlines(settings), settings.run)


@app.command()
def decoder(
    config: ConfigFile = None,
    run: Run = None,
    recognizer: Recognizer = None,
    faces: Faces = None,
    device: Device = None,
    seed: Seed = None,
    epochs: Epochs = None,
    threads: Threads = None,
) -> None:
    """Train the decoder of a recognizer: any recognizer, on any folder of aligned faces."""
    from xfr_plugin.training.config import load_config
    from xfr_plugin.training.decoder import DecoderConfig, train_decoder

    given: dict[str, Any] = {"run": run or (None if config else Path("runs/decoder")), "faces": faces}
    given |= {"recognizer": recognizer, "device": device, "seed": seed, "epochs": epochs, "threads": threads}
    settings = load_config(DecoderConfig, config, given)
    _report(train_decoder(settings), settings.run)


@app.command()
def regions(
    decoder: Annotated[str, typer.Option(help="Name or file of a trained decoder.")],
    out: Annotated[Path, typer.Option(help="File to write: the decoder with its regional evidence.")],
    recognizer: RecognizerOption = DEFAULT_RECOGNIZER,
    faces: FacesFolder = _FACES,
    exchanges: Annotated[
        int, typer.Option(min=1, help="Pairs of people whose regions are exchanged.")
    ] = 3000,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Measure how scores divide among the regions of the face, for a decoder that is already trained."""
    from xfr_plugin.recognition import load_recognizer
    from xfr_plugin.training.regions import add_regional_evidence

    check_targets([out], [recognizer])
    model = load_recognizer(recognizer, device=device)
    add_regional_evidence(decoder, model, faces, out, exchanges=exchanges, seed=seed)
    print_lines(f"decoder with regional evidence: {out}")


@app.command()
def evidence(
    config: ConfigFile = None,
    run: Run = None,
    recognizer: Recognizer = None,
    faces: Faces = None,
    publish: Annotated[
        Path | None, typer.Option(help="Where to write the evidence network (.safetensors).")
    ] = None,
    device: Device = None,
    seed: Seed = None,
    threads: Threads = None,
) -> None:
    """Teach a network what leaving out each region of a face would show: about an hour on two cores."""
    from xfr_plugin.training.config import load_config
    from xfr_plugin.training.evidence import EvidenceConfig, train_evidence

    given: dict[str, Any] = {"run": run, "recognizer": recognizer, "faces": faces}
    given |= {"device": device, "seed": seed, "threads": threads}
    settings = load_config(EvidenceConfig, config, given)
    check_targets([publish] if publish else [], [settings.recognizer])
    _print_figures("people who were held out", train_evidence(settings, publish).card.figures)
    print_lines(f"bank of effects: {settings.run}")


def _report(outcome: Outcome, run: Path) -> None:
    """Print the best validation as a table, and where everything is."""
    _print_figures(f"best of {len(outcome.records)} validations", outcome.best)
    print_lines(f"weights, log and curves: {run}")


def _print_figures(title: str, figures: Mapping[str, Any]) -> None:
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, _shown(value))
    terminal().print(table)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
