"""The model archive: handler, configuration, weights, this package, and what it needs; no pickles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml

import xfr_plugin
from xfr_plugin._version import __version__
from xfr_plugin.attr import load_evidence
from xfr_plugin.base.checksums import checksum_file
from xfr_plugin.base.files import atomic_path, write_text
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import InputError, ResultError
from xfr_plugin.reconstruction import list_decoders, load_decoder
from xfr_plugin.service.deployment import Deployment, read_deployment
from xfr_plugin.torchserve.configuration import Workers, model_config
from xfr_plugin.torchserve.recognizers import runtime_of, stage_recognizer
from xfr_plugin.torchserve.vendoring import copy_packages, needed_packages

__all__ = [
    "ArchivePlan",
    "build_archive",
    "check_archive",
    "handler_file",
    "packaged_deployment",
    "stage",
]

_DECODER, _EVIDENCE = "decoder.safetensors", "evidence.safetensors"
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".pyc")


@dataclass(frozen=True)
class ArchivePlan:
    """What goes into an archive.

    Attributes:
        name: of the model, and of the file without its suffix.
        deployment: recognizer and decoder may be names or files, the evidence network a file.
        workers: how TorchServe runs it.
        vendor: also copy the packages that TorchServe does not bring. The archive then serves on machines with the
            same operating system and Python version as this one.
    """

    name: str = "xfr"
    deployment: Deployment = field(default_factory=Deployment)
    workers: Workers = field(default_factory=Workers)
    vendor: bool = True


def build_archive(plan: ArchivePlan, folder: Path) -> Path:
    """Write `<name>.mar` into a folder, whole or not at all, by torch-model-archiver.

    Raises:
        InputError: torch-model-archiver is not installed, or the models do not fit each other.
        WeightsError: the models cannot be used.
        ResultError: the folder cannot be written to, or the archive holds what it must not.
    """
    target = folder / f"{plan.name}.mar"
    with tempfile.TemporaryDirectory(prefix="xfr-package-") as temporary:
        work = Path(temporary)
        deployment = stage(plan, work / "staged")
        config = work / "model-config.yaml"
        config.write_text(model_config(deployment, plan.workers), encoding="utf-8")
        built = _archive(plan.name, work, config)
        check_archive(built)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as unfinished:
                shutil.copyfile(built, unfinished)
            write_text(checksum_file(target), f"{sha256_of(target)}  {target.name}\n")
        except OSError as error:
            raise ResultError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def packaged_deployment(archive: Path) -> Deployment:
    """The deployment as an archive holds it: files of the user's are those in the archive, wherever they were."""
    with zipfile.ZipFile(archive) as packed:
        config = yaml.safe_load(packed.read("model-config.yaml"))
    return read_deployment(config.get("handler"))


def stage(plan: ArchivePlan, folder: Path) -> Deployment:
    """Copy package, packages and weights into a folder; returns the deployment as the archive will hold it."""
    folder.mkdir(parents=True)
    package = Path(xfr_plugin.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    if plan.vendor:
        copy_packages(needed_packages(runtime_of(plan.deployment.recognizer)), folder)
    return _stage_weights(plan.deployment, folder)


def check_archive(path: Path) -> None:
    """Make sure that nothing in an archive could be unpickled.

    Raises:
        ResultError: a file of a pickled kind, or that begins as a pickle does.
    """
    with zipfile.ZipFile(path) as file:
        for entry in file.infolist():
            with file.open(entry) as stream:
                head = stream.read(2)
            if entry.filename.endswith(_PICKLED) or (
                head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"
            ):
                raise ResultError(
                    f"{path.name} would hold a pickle, {entry.filename}: this is never packaged"
                )


def handler_file() -> Path:
    """The handler: in the repository, or where the wheel put it.

    Raises:
        InputError: it is not there.
    """
    places = (
        Path(xfr_plugin.__file__).parents[1] / "handlers" / "xfr_handler.py",
        Path(sysconfig.get_path("data")) / "share" / "xfr-plugin" / "xfr_handler.py",
    )
    for place in places:
        if place.is_file():
            return place
    raise InputError("the handler xfr_handler.py is missing: install the package again")


def _archive(name: str, work: Path, config: Path) -> Path:
    out = work / "out"
    out.mkdir()
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", name, "--version", __version__, "--handler", str(handler_file())),
        *("--config-file", str(config), "--extra-files", str(work / "staged")),
        *("--export-path", str(out), "--runtime", "python"),
    ]
    # the archiver empties <temporary folder>/<name> first: it gets one of its own
    scratch = work / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr:
        raise InputError("torch-model-archiver is not installed: pip install 'xfr-plugin[serve]'")
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ResultError(f"torch-model-archiver failed: {lines[-1]}")
    return out / f"{name}.mar"


def _stage_weights(deployment: Deployment, folder: Path) -> Deployment:
    recognizer, changes = stage_recognizer(deployment, folder)
    if deployment.decoder is not None:
        load_decoder(deployment.decoder, recognizer)
        if deployment.decoder not in list_decoders():
            shutil.copyfile(deployment.decoder, folder / _DECODER)
            changes["decoder"] = _DECODER
    if deployment.evidence is not None:
        load_evidence(deployment.evidence, recognizer)
        shutil.copyfile(deployment.evidence, folder / _EVIDENCE)
        changes["evidence"] = _EVIDENCE
    return deployment.model_copy(update=changes)
