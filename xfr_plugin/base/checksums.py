"""The checksum beside an archive, which finds damage."""

from __future__ import annotations

from pathlib import Path

from xfr_plugin.base.files import read_text
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import ChecksumError, InputError

__all__ = ["checksum_file", "verify_archive"]


def checksum_file(archive: Path) -> Path:
    """Where the checksum of an archive is, as `sha256sum --check` reads it."""
    return archive.with_name(f"{archive.name}.sha256")


def verify_archive(archive: Path) -> None:
    """Make sure that an archive is the one that was packaged here.

    Raises:
        InputError: it is not there, or its checksum is not.
        ChecksumError: it is another one.
    """
    if not archive.is_file():
        raise InputError(
            f"there is no {archive.name} in {archive.parent}: run `xfr package --out {archive.parent}` first"
        )
    noted = read_text(checksum_file(archive), "checksum (run `xfr package` again)").split()
    if noted[:1] != [sha256_of(archive)]:
        raise ChecksumError(f"{archive} is not the archive that was packaged: run `xfr package` again")
