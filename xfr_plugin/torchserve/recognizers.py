"""What of a recognizer goes into an archive: weights with their card, a model file, or a module of the user's."""

from __future__ import annotations

import importlib.util
import shutil
import site
from pathlib import Path

from torch import nn

import xfr_plugin
from xfr_plugin.base.files import write_text
from xfr_plugin.errors import InputError, LayoutError
from xfr_plugin.recognition import Recognizer, list_recognizers, load_recognizer, zoo_card
from xfr_plugin.recognition.layouts import fit_architecture
from xfr_plugin.recognition.loading import is_factory, module_of, read_card
from xfr_plugin.recognition.onnx_files import files_of_onnx
from xfr_plugin.recognition.zoo import RecognizerCard, save_recognizer
from xfr_plugin.service.deployment import Deployment

__all__ = ["runtime_of", "stage_recognizer"]

_RECOGNIZER = "recognizer.safetensors"
_RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}


def runtime_of(source: str) -> tuple[str, ...]:
    """The package, if any, that a recognizer needs beside those that every service does."""
    kind = _kind(source)
    if kind == ".json":
        return runtime_of(read_card(Path(source)).source)
    return (_RUNTIMES[kind],) if kind in _RUNTIMES else ()


def stage_recognizer(deployment: Deployment, folder: Path) -> tuple[Recognizer, dict[str, str | None]]:
    """Copy what a recognizer is made of into a folder; the recognizer, and what changes in the deployment.

    Raises:
        WeightsError: it cannot be loaded.
        InputError: a module that is not a file of the user's, or weights of an unknown architecture.
    """
    source = deployment.recognizer
    recognizer = load_recognizer(source, architecture=deployment.architecture)
    module = module_of(source)
    if module is not None:
        _copy_module(module, folder)
    if is_factory(source):
        return recognizer, {}
    if _kind(source) in (*_RUNTIMES, ".json"):
        return recognizer, {"recognizer": _copy_model(Path(source), folder)}
    shipped = {path.name for path in (Path(xfr_plugin.__file__).parent / "models").iterdir()}
    if f"{source}.safetensors" in shipped:
        return recognizer, {}
    save_recognizer(recognizer, folder / _RECOGNIZER, _card(deployment, recognizer))
    return recognizer, {"recognizer": _RECOGNIZER, "architecture": None}


def _kind(source: str) -> str:
    return "" if source.startswith(("http://", "https://")) else Path(source).suffix.lower()


def _copy_model(path: Path, folder: Path) -> str:
    """Copy a model file under its own name, by which its contract is known, or a card with what it names."""
    if _kind(path.name) != ".json":
        for file in _files_of(path):
            shutil.copyfile(file, folder / file.name)
        return path.name
    card = read_card(path)
    beside = path.parent / card.source
    if beside.is_file():
        card = card.model_copy(update={"source": _copy_model(beside, folder)})
    write_text(folder / path.name, card.model_dump_json())
    return path.name


def _files_of(path: Path) -> list[Path]:
    if _kind(path.name) == ".xml":
        return [path, path.with_suffix(".bin")]
    return files_of_onnx(path) if _kind(path.name) == ".onnx" else [path]


def _copy_module(top: str, folder: Path) -> None:
    """Copy the module of a function, or the package that it is in. What else it needs must be there already."""
    found = importlib.util.find_spec(top)
    origin = Path(found.origin) if found is not None and found.origin is not None else None
    installed = [Path(place) for place in (*site.getsitepackages(), site.getusersitepackages())]
    if origin is None or not origin.is_file() or any(place in origin.parents for place in installed):
        raise InputError(
            f"{top} is no module or package that lies in a folder of yours, and so is not packaged: put the function "
            "into one, or start `xfr serve --engine fastapi` where it is installed"
        )
    if origin.name == "__init__.py":
        shutil.copytree(origin.parent, folder / top, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(origin, folder / origin.name)


def _card(deployment: Deployment, recognizer: Recognizer) -> RecognizerCard:
    """Card of a recognizer that does not ship: the zoo's, or made up from what is known of the file."""
    if deployment.recognizer in list_recognizers():
        return zoo_card(deployment.recognizer)
    return RecognizerCard(
        name=recognizer.name,
        architecture=deployment.architecture or _architecture(recognizer.network, deployment.recognizer),
        input_size=recognizer.input_size,
        mean=_three(recognizer.mean.flatten().tolist()),
        std=_three(recognizer.std.flatten().tolist()),
        channel_order=recognizer.channel_order,
        provenance=recognizer.provenance,
        calibration=recognizer.calibration,
        region_shares={name: dict(shares) for name, shares in recognizer.region_shares.items()},
    )


def _three(values: list[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _architecture(network: nn.Module, source: str) -> str:
    try:
        return fit_architecture(network.state_dict(), source)[0]
    except LayoutError as error:
        raise InputError(f"{source}: name its architecture with --architecture") from error
