"""The command `xfr align`: aligned crops of a folder of photos."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xfr_plugin.base.files import PHOTOS, atomic_path, is_photo, make_folder, writing_to
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.cli.codes import EXIT_CODES
from xfr_plugin.cli.output import print_lines
from xfr_plugin.errors import FaceError, FaceWarning, InputError, XfrError

if TYPE_CHECKING:
    from xfr_plugin.faces import AlignedFace

app = typer.Typer()

_SUMMARY = "align.csv"


@app.command(
    "align", epilog=f"Example: `xfr align photos --out faces`. {EXIT_CODES} 2 too, if no photo worked."
)
def align_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos, in subfolders too.")],
    out: Annotated[Path, typer.Option(help="Folder for the crops, under the names of the photos.")],
    size: Annotated[
        tuple[int, int], typer.Option(min=8, help="Height and width of a crop, as the recognizer takes it.")
    ] = (112, 112),
    face: Annotated[int, typer.Option(help="Which face of a photo: 0 is the largest.")] = 0,
) -> None:
    """Find the face of each photo and write it as an aligned crop, with one row of a summary for each file."""
    photos = list(_photos(folder, out))
    if not photos:
        raise InputError(f"there are no photos ({', '.join(PHOTOS)}) in {folder}")
    if folder.resolve() == out.resolve():
        raise InputError("--out must be another folder: crops have the names of their photos")
    make_folder(out)
    failed = 0
    with (
        atomic_path(out / _SUMMARY) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(("file", "aligned", "remarks"))
        for photo in photos:
            name = photo.relative_to(folder)
            is_aligned, remarks = _align(photo, out / name, size, face)
            failed += not is_aligned
            rows.writerow((str(name), int(is_aligned), remarks))
            print_lines(f"{'aligned' if is_aligned else 'FAILED '}  {name}{'  ' if remarks else ''}{remarks}")
    print_lines(f"{len(photos) - failed} of {len(photos)} aligned; summary: {out / _SUMMARY}")
    if failed == len(photos):
        raise FaceError(f"no photo of {folder} could be aligned: see the reasons above")


def _photos(folder: Path, out: Path) -> Iterator[Path]:
    """All photos below a folder, but for the crops of an earlier call."""
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}")
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if Path(place, name).resolve() != out.resolve())
        yield from (Path(place, file) for file in sorted(files) if is_photo(file))


def _align(photo: Path, target: Path, size: tuple[int, int], face: int) -> tuple[bool, str]:
    """Write a crop; whether it worked, and what is to be said."""
    from xfr_plugin.faces import prepare_face

    try:
        with ignoring(FaceWarning):  # the same words are in the summary
            aligned = prepare_face(photo, size, alignment="detect", face=face)
        _write(aligned, target)
    except XfrError as error:
        return False, str(error)
    return True, "; ".join(aligned.notes)


def _write(aligned: AlignedFace, target: Path) -> None:
    from PIL import Image

    with writing_to(target.parent), atomic_path(target) as temporary:
        Image.fromarray(aligned.image).save(temporary, quality=95)  # of the formats that lose something
