"""What the training loop works on: the task, and what comes out of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.log import Record
from xfr_plugin.training.manifest import Manifest

__all__ = ["Outcome", "Task", "learning_rate_at", "step_generator"]


class Task(ABC):
    """What is learned: the network, the losses of a batch, and the validation.

    Attributes:
        network: what is trained. Build it in `build_network`, after the engine has set the seed.
        examples: how many training examples there are; batches are given as indices 0 … examples − 1.
        metric: name of the validation figure by which the best weights are chosen.
        maximise: whether a higher metric is better.
        manifest: the files that were used.
        device: where the losses are computed.
    """

    network: nn.Module
    examples: int
    metric: str
    maximise: bool = True
    manifest: Manifest = Manifest(files={})
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Build the network with its initial weights."""

    @abstractmethod
    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss terms of a batch, by name; `total` is minimised.

        Args:
            indices: int64, B, on the CPU.
            generator: on the CPU, seeded by the step; all randomness must come from it (or from torch's
                global generator, as dropout's does).
        """

    @abstractmethod
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures of a network in evaluation mode on held-out data, without gradients; one is `metric`."""

    def to(self, device: torch.device) -> None:
        """Move what the losses need; the network is moved by the engine."""
        self.device = device


@dataclass(frozen=True)
class Outcome:
    """What a training ended with.

    Attributes:
        network: the best weights, in evaluation mode, on the CPU.
        best: its log record.
        records: the whole log.
        stopped_early: whether `patience` or `stop_after` ended it.
    """

    network: nn.Module
    best: Record
    records: list[Record]
    stopped_early: bool

    @property
    def figures(self) -> Record:
        """What the best validation measured, by name."""
        return {k.removeprefix("val/"): v for k, v in self.best.items() if k.startswith("val/")}


def learning_rate_at(step: int, steps: int, config: EngineConfig) -> float:
    """Learning rate of step `step` (from 0) of `steps`: linear warm-up, then half a cosine."""
    warm = round(config.warmup * steps)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    low = config.final_share
    return config.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * share)) / 2)


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator that depends on the seed and the step alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 2_654_435_761 % (1 << 63))
