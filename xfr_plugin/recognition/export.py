"""Networks of torch as ONNX."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xfr_plugin.base.files import atomic_path
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.base.replicas import replica
from xfr_plugin.errors import InputError, in_one_line
from xfr_plugin.recognition.compiled import required

if TYPE_CHECKING:
    from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["SETTINGS_KEY", "export_onnx", "exported"]

SETTINGS_KEY = "xfr_recognizer"
"""Under which a file of ours keeps what else a recognizer is made of, as JSON."""

_OPSET = 17
"""The last whose operators other tools, onnx2torch among them, know in full."""

_ONE_AT_A_TIME = threading.Lock()
"""Torch's exporter refuses to run twice at once."""


def exported(network: nn.Module, images: Tensor) -> bytes:
    """A network in evaluation mode as an ONNX model that takes any number of images.

    Args:
        network: of torch.
        images: on which it is traced, N×3×H×W as the network takes them.

    Raises:
        InputError: onnx is not installed, or has no such operators.
        Exception: whatever torch's exporter raises.
    """
    onnx = required("onnx", "onnx")
    file: Any = io.BytesIO()  # which torch takes, and does not say so
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["embeddings"]}
    names["opset_version"] = _OPSET
    names["dynamic_axes"] = {"images": {0: "N"}, "embeddings": {0: "N"}}
    # an operator that ONNX lacks goes through and is looked for below: else torch prints all of its graph
    names["operator_export_type"] = torch.onnx.OperatorExportTypes.ONNX_FALLTHROUGH
    # the exporter that needs no further package is called old by torch
    with _ONE_AT_A_TIME, torch.no_grad(), ignoring(Warning):
        torch.onnx.export(replica(network), (images,), file, dynamo=False, **names)
    model: bytes = file.getvalue()
    nodes = onnx.load_from_string(model).graph.node
    lacking = sorted({node.op_type for node in nodes if node.domain not in ("", "ai.onnx")})
    if lacking:
        raise InputError(f"ONNX has no {', '.join(lacking)}")
    return model


def export_onnx(recognizer: Recognizer, path: Path) -> None:
    """Write the network of a recognizer, and its settings; see `Recognizer.to_onnx`."""
    if recognizer.gives != "gradient":
        raise InputError(f"{recognizer.name} is no network of torch, and only those can be written as ONNX")
    onnx = required("onnx", "onnx")
    faces = torch.zeros(2, 3, *recognizer.input_size, device=recognizer.device, dtype=recognizer.dtype)
    try:
        model = onnx.load_from_string(exported(recognizer.network, recognizer.preprocess(faces)))
    except InputError:
        raise
    except Exception as error:  # tracing foreign code can fail in any way
        raise InputError(f"{recognizer.name} cannot be exported: {in_one_line(error)}") from error
    onnx.helper.set_model_props(model, {SETTINGS_KEY: json.dumps(_settings(recognizer))})
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _settings(recognizer: Recognizer) -> dict[str, Any]:
    """What the network alone does not tell, as `loading.OnnxSettings` reads it."""
    calibration = recognizer.calibration
    threshold = recognizer.threshold if recognizer.decides else None
    is_calibrated = calibration is not None and threshold == calibration.threshold
    return {
        **recognizer.contract.model_dump(mode="json"),
        "name": recognizer.name,
        "threshold": None if is_calibrated else threshold,
        "calibration": None if calibration is None else calibration.model_dump(mode="json"),
        "region_shares": recognizer.region_shares,
        "provenance": recognizer.provenance.model_dump(mode="json"),
    }
