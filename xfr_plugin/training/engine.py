"""The training loop: seeded, resumable to the bit, with validation, averaging and early stopping."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from torch import Tensor, nn

from xfr_plugin.base.devices import check_device
from xfr_plugin.base.files import atomic_path, write_text
from xfr_plugin.base.weights import load_state_dict_into, read_weights, write_weights
from xfr_plugin.errors import InputError
from xfr_plugin.training.checkpoint import (
    Progress,
    WeightAverage,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from xfr_plugin.training.config import EngineConfig
from xfr_plugin.training.log import Record, curve_figure, write_log
from xfr_plugin.training.task import Outcome, Task, learning_rate_at, step_generator

__all__ = ["Outcome", "Task", "learning_rate_at", "step_generator", "threads_of", "train"]


def train(task: Task, config: EngineConfig, on_step: Callable[[int], None] | None = None) -> Outcome:
    """Train, or continue a training that was interrupted, and return the best network.

    The run folder receives `config.json`, `manifest.json`, `log.jsonl`, `curves.png`, `checkpoint.pt` and
    `best.safetensors`. If it holds a checkpoint, training continues from there with identical results.

    Args:
        task: what is learned.
        config: how.
        on_step: called with the number of each finished step.

    Raises:
        InputError: fewer examples than a batch, an unknown device, or a run folder of another training.
        WeightsError: the checkpoint is damaged.
    """
    with threads_of(config.threads):
        loop = _Loop(task, config)
        loop.resume()
        return loop.run(on_step)


@contextmanager
def threads_of(count: int | None) -> Iterator[None]:
    """Compute with so many CPU threads, then with as many as before."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Loop:
    def __init__(self, task: Task, config: EngineConfig) -> None:
        self.task, self.config = task, config
        self.passes = task.examples // config.batch_size
        if self.passes < 1:
            raise InputError(
                f"{task.examples} training examples do not fill a batch of {config.batch_size}: "
                "lower batch_size"
            )
        self.device = check_device(config.device)
        self.epoch_steps = config.epoch_steps or self.passes
        self.steps = self.epoch_steps * config.epochs
        torch.manual_seed(config.seed)
        task.network = task.build_network().to(self.device)
        task.to(self.device)
        self.optimizer = _optimizer(task.network, config)
        self.half = config.mixed_precision and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half)
        self.average = WeightAverage(task.network, config.ema_decay)
        self.progress = Progress()
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.identity = {**config.defining_fields(), "data": task.manifest.digest}

    @property
    def folder(self) -> Path:
        return self.config.run

    def resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            self._start_folder()
            return
        state = load_checkpoint(path, self.identity)
        self.task.network.load_state_dict(state["network"])
        for name, value in state["average"].items():
            self.average.state[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        set_rng_state(state["rng"])

    def _start_folder(self) -> None:
        self.task.manifest.write(self.folder / "manifest.json")
        document = self.config.model_dump(mode="json", exclude={"run"})
        write_text(self.folder / "config.json", json.dumps(document, indent=2))

    def checkpoint(self) -> None:
        state = {
            "identity": self.identity,
            "network": self.task.network.state_dict(),
            "average": self.average.state,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": rng_state(),
            "progress": asdict(self.progress),
        }
        save_checkpoint(self.folder / "checkpoint.pt", state)

    def run(self, on_step: Callable[[int], None] | None) -> Outcome:
        saved = time.monotonic()
        with self._bars() as bars:
            bar = bars.add_task("training", total=self.steps, completed=self.progress.step)
            while self.progress.step < self.steps and not self.stopped:
                self.step()
                if self.progress.step % self.epoch_steps == 0:
                    self.finish_epoch()
                    bars.update(bar, description=self.headline())
                if self.progress.step % self.epoch_steps == 0 or self.is_due(saved):
                    self.checkpoint()
                    saved = time.monotonic()
                bars.update(bar, completed=self.progress.step)
                if on_step:
                    on_step(self.progress.step)
        return self.outcome()

    def is_due(self, saved: float) -> bool:
        return time.monotonic() - saved > self.config.checkpoint_minutes * 60

    @property
    def stopped(self) -> bool:
        done, last = len(self.progress.records), self.config.stop_after
        return 0 < self.config.patience <= self.progress.stale or (last is not None and done >= last)

    def batch(self, step: int) -> Tensor:
        """Indices of a step: pass after pass over a seeded permutation, without the incomplete last batch."""
        number, position = divmod(step, self.passes)
        if self.order[0] != number:
            generator = step_generator(self.config.seed + 1, number)
            self.order = (number, torch.randperm(self.task.examples, generator=generator))
        return self.order[1][position * self.config.batch_size :][: self.config.batch_size]

    def step(self) -> None:
        step, began = self.progress.step, time.monotonic()
        rate = learning_rate_at(step, self.steps, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.task.network.train()
        with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.half):
            losses = self.task.losses(self.batch(step), step_generator(self.config.seed, step))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(losses["total"]))
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.task.network.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.task.network, step)
        for name, value in losses.items():
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + float(value.detach())
        self.progress.step += 1
        self.progress.seconds += time.monotonic() - began

    def finish_epoch(self) -> None:
        progress, network = self.progress, self.kept_network()
        with torch.no_grad():
            figures = self.task.validate(network)
        record: Record = {
            "epoch": progress.step // self.epoch_steps,
            "step": progress.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(progress.seconds, 2),
            **{f"train/{name}": total / self.epoch_steps for name, total in progress.sums.items()},
            **{f"val/{name}": value for name, value in figures.items()},
        }
        progress.records.append(record)
        progress.sums, progress.seconds = {}, 0.0
        self._judge(network, figures[self.task.metric])
        write_log(self.folder / "log.jsonl", progress.records)
        with atomic_path(self.folder / "curves.png") as temporary:
            curve_figure(progress.records).savefig(temporary, dpi=90)

    def _judge(self, network: nn.Module, figure: float) -> None:
        progress, sign = self.progress, 1 if self.task.maximise else -1
        if progress.best is None or sign * figure > sign * progress.best:
            progress.best, progress.stale = figure, 0
            metadata = {"record": progress.records[-1], "identity": self.identity}
            write_weights(self.folder / "best.safetensors", network.state_dict(), metadata)
        else:
            progress.stale += 1

    def kept_network(self) -> nn.Module:
        """A copy with the averaged weights, in evaluation mode."""
        network = copy.deepcopy(self.task.network)
        if self.config.ema_decay:
            network.load_state_dict(self.average.state)
        return network.eval()

    def headline(self) -> str:
        record, name = self.progress.records[-1], self.task.metric
        return f"epoch {record['epoch']}: {name} {record[f'val/{name}']:.4f}, best {self.progress.best:.4f}"

    def outcome(self) -> Outcome:
        state, metadata = read_weights(self.folder / "best.safetensors")
        network = copy.deepcopy(self.task.network).cpu()
        load_state_dict_into(network, state, "best.safetensors")
        return Outcome(
            network.eval().requires_grad_(False), metadata["record"], self.progress.records, self.stopped
        )

    def _bars(self) -> Bars:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        return Bars(*columns, console=console, disable=not self.config.progress or not console.is_terminal)


def _optimizer(network: nn.Module, config: EngineConfig) -> torch.optim.Optimizer:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)
