"""Forward passes of networks of torch by another runtime: the same answers in less time.

What needs forward passes of a recognizer and no gradient takes them here: decisions, and explanations by removal. The
network is exported to ONNX once, and onnxruntime or OpenVINO, whichever is installed, runs it; without either, torch
does, and so it does in a process that decides on few pairs, as an export takes longer. A runtime is taken only if

- the network is one of torch, on the CPU, in float32, in evaluation mode, and carries no hooks of anybody;
- its unit embeddings of faces of nobody are so close to those of torch, alone and in a batch, that no score of two of
  them differs by more than 1e-5.

The export is kept with the recognizer, and made anew when its network has changed (`base.replicas.state_of`).
"""

from __future__ import annotations

import importlib.util
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.base.replicas import parts_of, state_of
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.recognition.black_boxes import BlackBox
from xfr_plugin.recognition.export import exported
from xfr_plugin.recognition.onnx_files import OnnxNetwork
from xfr_plugin.recognition.openvino_files import OpenVinoNetwork
from xfr_plugin.recognition.outputs import embedding_in
from xfr_plugin.recognition.self_test import faces_of_nobody

if TYPE_CHECKING:
    from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["PAYS", "Forwards", "carries_hooks", "runtimes"]

PAYS = 200
"""Forward passes of a face from which on an export pays, unless there is one already: asked for at once, or since the
last export. A single pair's decision and explanation are done before an export is."""

_SAME = 0.5e-5
"""Largest distance of unit embeddings between a runtime and torch. Scores of two differ by twice as much at most."""

_RUNTIMES: dict[str, Callable[[bytes, bytes], BlackBox]] = {
    "onnxruntime": OnnxNetwork,
    "openvino": OpenVinoNetwork,
}


@cache
def runtimes() -> tuple[str, ...]:
    """Runtimes that are installed, the fastest first."""
    if importlib.util.find_spec("onnx") is None:  # which torch exports with
        return ()
    return tuple(name for name in _RUNTIMES if importlib.util.find_spec(name) is not None)


@dataclass(frozen=True)
class _Kept:
    """A network of torch in a state, and what runs it; None if nothing does."""

    network: weakref.ref[nn.Module]
    state: tuple[Any, ...]
    runs: BlackBox | None


class Forwards:
    """What runs the forward passes of one recognizer. A copy of the recognizer has its own."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None
        self._asked = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Forwards:
        return Forwards()

    def __reduce__(self) -> tuple[Any, ...]:
        return Forwards, ()

    def network(self, recognizer: Recognizer, passes: int) -> nn.Module:
        """What computes the same as the recognizer's network, in the least time.

        Args:
            recognizer: whose forward passes are wanted.
            passes: how many, of a face each.
        """
        kept, network = self._kept, recognizer.network
        self._asked += passes
        if (kept is None and self._asked < PAYS) or not _possible(recognizer):
            return network
        state = state_of(network)
        if kept is None or kept.network() is not network or kept.state != state:
            if self._asked < PAYS:
                return network
            with self._lock:
                kept = self._kept
                if kept is None or kept.network() is not network or kept.state != state:
                    kept = self._kept = _Kept(weakref.ref(network), state, _made(recognizer))
        self._asked = 0
        return kept.runs or network


def carries_hooks(network: nn.Module) -> bool:
    """Whether somebody hooked a module of a network; those hooks are to be called."""
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in parts_of(network)
    )


def _possible(recognizer: Recognizer) -> bool:
    network = recognizer.network
    return (
        recognizer.gives == "gradient"
        and not isinstance(network, BlackBox)  # as in what `Recognizer.for_forward_passes` gave
        and bool(runtimes())
        and recognizer.device.type == "cpu"
        and all(part.dtype == torch.float32 for part in network.parameters())
        and not any(part.training for part in parts_of(network))
        and not carries_hooks(network)
    )


def _made(recognizer: Recognizer) -> BlackBox | None:
    """The network as the first runtime runs it that gives the same embeddings."""
    faces = recognizer.preprocess(faces_of_nobody(recognizer.input_size).to(recognizer.mean))
    try:
        model = exported(recognizer.network, faces[:2])
    except Exception:  # tracing foreign code can fail in any way, and this is only a matter of speed
        return None
    found = (_run_by(name, model, recognizer, faces) for name in runtimes())
    return next((runs for runs in found if runs is not None), None)


@torch.no_grad()
def _run_by(runtime: str, model: bytes, recognizer: Recognizer, faces: Tensor) -> BlackBox | None:
    """The exported network as a runtime runs it; None if it cannot, or gives other embeddings than torch."""
    try:
        runs = _RUNTIMES[runtime](model, model)
        return runs if _agrees(recognizer, runs, faces) else None
    except (InputError, WeightsError):
        return None


def _agrees(recognizer: Recognizer, runs: BlackBox, faces: Tensor) -> bool:
    """Whether a runtime gives the same of one face and of several; noise is no face, and shows what faces hide."""
    noise = torch.rand(3, *faces.shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    return all(
        bool((_units(recognizer.network, some) - _units(runs, some)).norm(dim=1).max() <= _SAME)
        for some in (faces[:1], faces, noise)
    )


def _units(network: nn.Module, images: Tensor) -> Tensor:
    return functional.normalize(embedding_in(network(images), len(images), ""), dim=1)
