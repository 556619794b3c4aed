"""Recognizers that are ONNX files, run by onnxruntime."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.base.files import shown
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import InputError, WeightsError, in_one_line
from xfr_plugin.recognition.black_boxes import BlackBox
from xfr_plugin.recognition.compiled import Compiled, in_batches, pixel_layout, required
from xfr_plugin.recognition.outputs import embedding_in
from xfr_plugin.recognition.self_test import faces_of_nobody

__all__ = ["OnnxNetwork", "converted", "files_of_onnx", "opened_onnx"]

_EXTERNAL = b"location"
"""Stands in a file that has weights in others."""

_SAME = 1e-4
"""Largest difference of unit embeddings between a file and what it was converted to."""


class OnnxNetwork(BlackBox):
    """An ONNX model that takes images, on the CPU, on as many threads as torch computes on.

    Args:
        model: path of the file, or what stands in it.
        identity: see `BlackBox`.

    Raises:
        WeightsError: the model cannot be read, or takes no images.
        InputError: onnxruntime is not installed.
    """

    def __init__(self, model: Path | bytes, identity: bytes) -> None:
        super().__init__(identity)
        self.label = model.name if isinstance(model, Path) else "the exported network"
        source = model if isinstance(model, bytes) else str(model)
        self._session = Compiled(partial(_session, source))
        try:
            inputs = self._session().get_inputs()
        except InputError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base
            raise WeightsError(f"{self.label} cannot be read: {in_one_line(error)}") from error
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            taken = ", ".join(f"{given.name} {given.shape}" for given in inputs)
            raise WeightsError(f"{self.label} takes {taken}: one input of images N×3×H×W is wanted")
        self._input, self._half = inputs[0].name, "float16" in inputs[0].type
        self.input_size, self._last, self._count = pixel_layout(inputs[0].shape)

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says about itself."""
        return dict(self._session().get_modelmeta().custom_metadata_map)

    def _embed(self, images: Tensor) -> Any:
        parts = [part.to(images.device) for part in in_batches(self._run, images, self._last, self._count)]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _run(self, rows: Any) -> list[Any]:
        try:
            return list(
                self._session().run(None, {self._input: rows.astype("float16") if self._half else rows})
            )
        except Exception as error:  # as above
            raise InputError(f"{self.label}: {in_one_line(error)}") from error


def opened_onnx(path: Path) -> OnnxNetwork:
    """The network of an ONNX file.

    Raises:
        WeightsError: it cannot be read.
        InputError: onnxruntime is not installed.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {shown(path)}")
    digests = [sha256_of(file) for file in files_of_onnx(path)]
    network = OnnxNetwork(path, "".join(digests).encode())
    network.sha256 = digests[0]
    return network


def files_of_onnx(path: Path) -> list[Path]:
    """An ONNX file, and those beside it that hold weights of it, as exporters write them of large networks.

    Raises:
        WeightsError: it cannot be read, or one of them is not there.
        InputError: there are such, and onnx, which reads their names, is not installed.
    """
    content = path.read_bytes()
    if _EXTERNAL not in content:
        return [path]
    onnx = required("onnx", "onnx")
    try:
        tensors = onnx.load_from_string(content).graph.initializer
    except Exception as error:  # protobuf's errors are none of onnx's
        raise WeightsError(f"{path.name} cannot be read: {in_one_line(error)}") from error
    named = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    for name in named:
        if Path(name).name != name or not (path.parent / name).is_file():
            raise WeightsError(
                f"{path.name} has weights in {shown(name)}, and no file of that name is beside it"
            )
    return [path, *(path.parent / name for name in sorted(named))]


def _session(source: str | bytes, threads: int) -> Any:
    runtime = required("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors are raised, and warnings are about others' exporters
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others compute meanwhile
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def converted(path: Path, network: OnnxNetwork) -> nn.Module:
    """A network of torch that computes what an ONNX file does.

    Args:
        path: of the file.
        network: that it holds.

    Raises:
        WeightsError: it cannot be converted, or not to a network that computes the same.
        InputError: onnx2torch is not installed.
    """
    convert = required("onnx2torch", "onnx").convert
    faces = faces_of_nobody(network.input_size or (112, 112)) * 2 - 1
    try:
        made: nn.Module = convert(str(path)).eval().requires_grad_(False)
        with torch.no_grad():
            found, expected = (_units(module, faces, path.name) for module in (made, network))
    except Exception as error:  # of a converter, which fails in many ways
        raise WeightsError(
            f"{path.name} cannot be converted to a network of torch: {in_one_line(error)}; "
            "without gradients it can be used"
        ) from error
    difference = float((found - expected).abs().max())
    if not difference <= _SAME:
        raise WeightsError(
            f"{path.name} was converted to a network whose embeddings differ by {difference:.1g}: "
            "use it without gradients"
        )
    return made


def _units(network: nn.Module, faces: Tensor, name: str) -> Tensor:
    return functional.normalize(embedding_in(network(faces), len(faces), name), dim=1)
