"""Checkpoints: all that a training needs to continue as if it had never stopped."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xfr_plugin.base.files import atomic_path
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.training.log import Record

__all__ = ["Progress", "WeightAverage", "load_checkpoint", "rng_state", "save_checkpoint", "set_rng_state"]

_KEYS = {"identity", "network", "average", "optimizer", "scaler", "rng", "progress"}


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: steps done. Order and augmentation follow from the seed and the step alone.
        sums: sums of the losses since the last validation, by name.
        seconds: computing time since the last validation.
        records: the log so far.
        best: the best validation figure so far, if any.
        stale: validations since then.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    records: list[Record] = field(default_factory=list)
    best: float | None = None
    stale: int = 0


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint of the training that `identity` describes. Nothing in it is executed.

    Raises:
        WeightsError: the file is damaged or no checkpoint.
        InputError: it belongs to a training with another configuration or other data.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on damaged archives
        raise WeightsError(
            f"{path} is damaged or no checkpoint ({type(error).__name__}): delete it to start afresh"
        ) from error
    if not isinstance(state, dict) or set(state) != _KEYS:
        raise WeightsError(f"{path} is no checkpoint of ours: delete it to start afresh")
    found = state["identity"]
    differing = sorted(k for k in found.keys() | identity.keys() if found.get(k) != identity.get(k))
    if differing:
        raise InputError(
            f"{path.parent} holds a training with another {', '.join(differing)}: "
            "choose another run folder, or delete this one"
        )
    return state


def rng_state() -> dict[str, Any]:
    """States of the global random generators of torch, numpy and Python, as plain values."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state, for whoever uses it
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - as above
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


class WeightAverage:
    """Exponential moving average of a network's weights and buffers.

    Early on the decay is lowered to (1 + step) / (10 + step), so that the random start is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network's present weights; `step` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own: dict[str, Tensor] = network.state_dict()
        for name, average in self.state.items():
            if average.is_floating_point():
                average.lerp_(own[name], 1 - decay)
            else:
                average.copy_(own[name])
