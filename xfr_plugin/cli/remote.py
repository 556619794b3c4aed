"""`xfr verify` and `xfr explain` with `--server`: the same questions to a server of the service."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import atomic_path, writing_to
from xfr_plugin.cli.output import print_lines, terminal
from xfr_plugin.errors import InputError, PhotoNotFoundError

if TYPE_CHECKING:
    from xfr_plugin.service.answers import Answer, ExplanationAnswer, FaceReasons

__all__ = ["ask", "print_answer", "refuse_local_options", "save_answer"]


def ask(
    server: str, token_file: Path | None, photos: tuple[Path, Path], explain: bool, **options: Any
) -> Answer:
    """Ask a server about two photos; options that are None are left out.

    Raises:
        PhotoNotFoundError: there is no such photo.
        InputError: the URL or the token makes no sense.
        ServiceError: the service's own answer: what is wrong.
        ClientError: there is no answer of the service.
    """
    from xfr_plugin.service.client import Client, read_token

    data = [_read(photo) for photo in photos]
    token = read_token(token_file) if token_file else None
    given = {name: value for name, value in options.items() if value is not None}
    with Client(server, token=token, timeout=300.0) as client:
        return (client.explain if explain else client.verify)(*data, **given)


def refuse_local_options(recognizer: str, architecture: str | None, device: str, others: object) -> None:
    """A server has its own recognizer and device: what is chosen here would not be what answers.

    Raises:
        InputError: one was named.
    """
    given = {
        "recognizer": recognizer != DEFAULT_RECOGNIZER,
        "architecture": architecture,
        "device": device != "cpu",
        "face-a, --face-b or --option": others,
    }
    named = [f"--{name}" for name, value in given.items() if value]
    if named:
        raise InputError(f"{' and '.join(named)} cannot be combined with --server: the server has its own")


def save_answer(answer: Answer, folder: Path) -> list[Path]:
    """Write `answer.json`, and the overlay of each face as `probe.png` and `reference.png`.

    Raises:
        ResultError: the folder cannot be written to.
    """
    files = {"answer.json": answer.model_dump_json(indent=1).encode()}
    for name in ("probe", "reference"):
        reasons: FaceReasons | None = getattr(answer.explanation, name, None)
        if reasons is not None and reasons.overlay_png is not None:
            files[f"{name}.png"] = base64.b64decode(reasons.overlay_png)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            with atomic_path(folder / file) as temporary:
                temporary.write_bytes(data)
    return [folder / file for file in files]


def print_answer(answer: Answer) -> None:
    """The reasons of an answer, and its warnings."""
    if answer.explanation is not None:
        terminal().print(_regions(answer.explanation))
        print_lines(*(answer.explanation.words or ()))
    for warned in answer.warnings:
        whose = f"{warned.face}: " if warned.face else ""
        print_lines(f"note: {whose}{warned.message}")


def _regions(explanation: ExplanationAnswer) -> Table:
    from xfr_plugin.explanation.words import component_name  # torch is slow to import

    table = Table("region", "probe", "reference", title=f"net evidence by region ({explanation.method})")
    sides = [s.regions if s else None for s in (explanation.probe, explanation.reference)]
    for rows in zip(*(side for side in sides if side), strict=True):
        table.add_row(component_name(rows[0].region), *(f"{row.evidence:+.4f}" for row in rows))
    return table


def _read(photo: Path) -> bytes:
    try:
        return photo.read_bytes()
    except OSError as error:
        raise PhotoNotFoundError(f"{photo} cannot be read: {error.strerror or error}") from error
