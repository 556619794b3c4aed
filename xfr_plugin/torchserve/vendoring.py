"""The packages that the service needs and TorchServe does not bring: copied from here into the archive."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from xfr_plugin.errors import InputError

__all__ = ["GIVEN", "copy_packages", "given_packages", "needed_packages"]

GIVEN = ("torch", "torchvision", "torchserve", "pyyaml")
"""What a machine that runs TorchServe has, with all that these require."""

_OWN = "xfr-plugin"
_LEFT_OUT = {"..", "__pycache__", "test", "tests", "sample_data"}
_NEEDED = (
    "captum",
    "lazy-loader",
    "matplotlib",
    "numpy",
    "pillow",
    "pydantic",
    "safetensors",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "zennit",
)
"""What the service imports; the command line's packages stay out."""


def needed_packages(runtime: Iterable[str] = ()) -> list[str]:
    """Names of the distributions to copy, sorted.

    Args:
        runtime: further ones, that the recognizer needs.

    Raises:
        InputError: one of them is not installed here.
    """
    return sorted(_closure((*_NEEDED, *runtime)) - set(given_packages()))


def given_packages() -> list[str]:
    """Names of the distributions that a machine with TorchServe has, as far as they are installed here; sorted."""
    return sorted(_closure(GIVEN, strict=False))


def copy_packages(names: Iterable[str], folder: Path) -> int:
    """Copy distributions, as they are installed here, into a folder; returns the number of their files.

    Raises:
        InputError: one was installed without a list of its files.
    """
    copied = 0
    for name in names:
        files = metadata.distribution(name).files
        if files is None:
            raise InputError(
                f"{name} was installed without a list of its files: install it with pip, or use --no-vendor"
            )
        for file in files:
            if not _LEFT_OUT.isdisjoint(file.parts):
                continue
            target = folder.joinpath(*file.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
            copied += 1
    return copied


def _closure(names: Iterable[str], strict: bool = True) -> set[str]:
    found: set[str] = set()
    waiting = [_canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name == _OWN:
            continue
        try:
            requires = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError as error:
            if strict:
                raise InputError(f"{name} is not installed here: install it, or use --no-vendor") from error
            continue
        found.add(name)
        requirements = [Requirement(text) for text in requires]
        waiting += [
            _canonical(r.name) for r in requirements if not r.marker or r.marker.evaluate({"extra": ""})
        ]
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
