"""Recognizers of a user's own, in a folder, and the transformer that ships: as `--recognizer` and deployments
take them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.loading import MeasuredCard
from xfr_plugin.service import Deployment

MODULE = "pooled_of_tests"
CODE = """
import torch
from xfr_plugin.recognition import Recognizer

def pooled(faces):
    return torch.nn.functional.adaptive_avg_pool2d(faces - 0.5, 8).flatten(1)

def percent(probes, references):
    return (50 + 50 * torch.cosine_similarity(pooled(probes), pooled(references))).tolist()

def embedding():
    return Recognizer.from_callable(lambda faces: pooled(faces).numpy(), threshold=0.2, name="pooled")

def scoring():
    return Recognizer.from_scores(percent, threshold=60, name="percent")
"""


def _module(folder: Path) -> str:
    (folder / f"{MODULE}.py").write_text(CODE)
    return f"{MODULE}:embedding"


def _package(folder: Path) -> str:
    """The function lies in a module of a package, and what it calls in another."""
    (folder / MODULE).mkdir()
    (folder / MODULE / "__init__.py").write_text("")
    (folder / MODULE / "within.py").write_text(CODE)
    (folder / MODULE / "made.py").write_text("from .within import embedding\n")
    return f"{MODULE}.made:embedding"


def _scores(folder: Path) -> str:
    return _module(folder).replace("embedding", "scoring")


def _onnx(folder: Path) -> str:
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    load_recognizer("xfr_compact128").with_threshold(0.25).to_onnx(folder / "small.onnx")
    return str(folder / "small.onnx")


def _weights_apart(folder: Path) -> str:
    """As exporters write large networks: the weights lie in a file beside it."""
    path = _onnx(folder)
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location="small.weights", size_threshold=0
    )
    return path


def _openvino(folder: Path) -> str:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    openvino.save_model(openvino.Core().read_model(_onnx(folder)), folder / "small.xml")
    (folder / "small.onnx").unlink()
    return str(folder / "small.xml")


def _card(source: Callable[[Path], str]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = Path(source(folder))
        found = load_recognizer(path)
        card = MeasuredCard(
            **found.contract.model_dump(),
            name="mine",
            source=path.name,
            fingerprint=fingerprint(found),
            calibration=load_recognizer("xfr_compact128").calibration,
            gives="embeddings",
        )
        (folder / "mine.json").write_text(card.model_dump_json())
        return str(folder / "mine.json")

    return write


KINDS: dict[str, Callable[[Path], str]] = {
    "transformer": lambda folder: "xfr_transformer",
    "onnx": _onnx,
    "weights apart": _weights_apart,
    "openvino": _openvino,
    "card": _card(_onnx),
    "card of openvino": _card(_openvino),
    "module": _module,
    "package": _package,
    "scores": _scores,
}


def forget() -> None:
    """Let the module be imported anew, wherever it lies now."""
    for name in [name for name in sys.modules if name.partition(".")[0] == MODULE]:
        del sys.modules[name]


def own_deployment(kind: str, folder: Path) -> Deployment:
    """Write a recognizer of a kind into a folder, which must be importable from, and name it in a deployment."""
    forget()
    folder.mkdir(exist_ok=True)
    # what OpenVINO's files say of themselves has no threshold
    return Deployment(recognizer=KINDS[kind](folder), threshold=0.25 if kind == "openvino" else None)
