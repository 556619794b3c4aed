"""Recognizers that are OpenVINO files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from xfr_plugin.base.files import shown
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import InputError, WeightsError, in_one_line
from xfr_plugin.recognition.black_boxes import BlackBox
from xfr_plugin.recognition.compiled import Compiled, in_batches, pixel_layout, required

__all__ = ["OpenVinoNetwork", "opened_openvino"]


class OpenVinoNetwork(BlackBox):
    """A model that OpenVINO reads and that takes images, on the CPU, on as many threads as torch computes on.

    Args:
        model: path of an `.xml` or ONNX file, or what stands in an ONNX file.
        identity: see `BlackBox`.

    Raises:
        WeightsError: the model cannot be read, or takes no images.
        InputError: openvino is not installed.
    """

    def __init__(self, model: Path | bytes, identity: bytes) -> None:
        super().__init__(identity)
        self.label = model.name if isinstance(model, Path) else "the exported network"
        self._program = Compiled(partial(_compiled, model if isinstance(model, bytes) else str(model)))
        try:
            inputs = self._program().inputs
        except InputError:
            raise
        except Exception as error:  # OpenVINO's errors are many
            raise WeightsError(f"{self.label} cannot be read: {in_one_line(error)}") from error
        shapes = [[side.get_length() if side.is_static else None for side in x.partial_shape] for x in inputs]
        if len(shapes) != 1 or len(shapes[0]) != 4:
            raise WeightsError(f"{self.label} takes {shapes}: one input of images N×3×H×W is wanted")
        self.input_size, self._last, self._count = pixel_layout(shapes[0])

    def _embed(self, images: Tensor) -> Any:
        parts = [part.to(images.device) for part in in_batches(self._run, images, self._last, self._count)]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _run(self, rows: Any) -> list[Any]:
        try:
            request = self._program().create_infer_request()  # a request is for one thread
            found = request.infer([rows])
            return [found[port].copy() for port in found]
        except Exception as error:  # as above
            raise InputError(f"{self.label}: {in_one_line(error)}") from error


def opened_openvino(path: Path) -> OpenVinoNetwork:
    """The network of an OpenVINO file.

    Raises:
        WeightsError: it cannot be read.
        InputError: openvino is not installed.
    """
    weights = path.with_suffix(".bin")
    for file in (path, weights):
        if not file.is_file():
            raise WeightsError(f"there is no file {shown(file)}")
    digests = [sha256_of(path), sha256_of(weights)]
    network = OpenVinoNetwork(path, "".join(digests).encode())
    network.sha256 = digests[0]
    return network


def _compiled(source: str | bytes, threads: int) -> Any:
    openvino = required("openvino", "openvino")
    core = openvino.Core()
    model = core.read_model(source)
    shape = model.inputs[0].partial_shape if len(model.inputs) == 1 else None
    if shape is not None and len(shape) == 4 and shape[0].is_static:
        # files are made for one image, and most networks take any number
        anyhow = core.read_model(source)
        try:
            anyhow.reshape([-1, *list(shape)[1:]])
            return _for_threads(core, anyhow, threads)
        except RuntimeError:
            pass
    return _for_threads(core, model, threads)


def _for_threads(core: Any, model: Any, threads: int) -> Any:
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(model, "CPU", settings)
