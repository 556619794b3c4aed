"""Jobs that kill the process that does them, or take for ever, in a module that other processes find."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import torch

__all__ = ["DeadlyJob", "Echo", "EndlessJob"]


class DeadlyJob:
    """A job that kills the process that does it, if it is a deadly one."""

    def __init__(self, number: int, deadly: bool) -> None:
        self.number, self.deadly = number, deadly

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeadlyJob) and other.number == self.number

    def load(self) -> int:
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.number

    def failed(self, why: str) -> str:
        return why


class EndlessJob(DeadlyJob):
    """A job that takes for ever, if it is such a one."""

    def load(self) -> int:
        if self.deadly:
            time.sleep(3600)
        return self.number


class Echo:
    """A task whose workers give back what a job has loaded."""

    name, device = "none", torch.device("cpu")

    def worker(self) -> Callable[[int], int]:
        return abs
