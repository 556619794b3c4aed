"""Photographs where aligned crops are expected: said aloud, since every number would be about the wrong pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np

from xfr_plugin.base.files import shown
from xfr_plugin.errors import FaceWarning
from xfr_plugin.explanation.quality import MISALIGNED, misalignment
from xfr_plugin.faces.folder import FaceFolder

__all__ = ["warn_of_scenes"]

_CHECKED = 5


def warn_of_scenes(folder: FaceFolder, files: Iterable[str]) -> None:
    """Look at the first few faces.

    Warns:
        FaceWarning: the faces of most of them do not lie where those of aligned crops do.
    """
    looked = list(dict.fromkeys(files))[:_CHECKED]
    found = {file: misalignment(np.rint(folder.face(file) * 255).astype(np.uint8)) for file in looked}
    odd = [file for file, distance in found.items() if distance is not None and distance > MISALIGNED]
    if 2 * len(odd) > len(looked):
        warnings.warn(
            f"{shown(odd[0])} and others look like photographs, not like the aligned crops as which they are taken: "
            "make crops with `xfr align` first",
            FaceWarning,
            stacklevel=3,
        )
