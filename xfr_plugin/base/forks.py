"""Computing in a process that was forked from one which has computed already."""

from __future__ import annotations

import os
from functools import cache, partial

import torch

__all__ = ["compute_in_forks"]


@cache
def compute_in_forks() -> None:
    """Let forked processes compute on one core, from now on: torch's threads do not survive a fork.

    With more cores the child would wait for them for ever at its first larger operation. A child that has not
    computed yet may choose another number itself, if its parent had not either.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
