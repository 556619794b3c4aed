"""Modes of torch that a caller may be in, and that our calls leave for as long as they work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["own_modes"]

_AUTOCASTING = ("cpu", "cuda")


@contextmanager
def own_modes() -> Iterator[None]:
    """Compute in the recognizer's own type and place, whatever the caller's modes are, and with gradients.

    A decision and its reasons are those of the recognizer: in a block of `torch.autocast` they would be those of
    another one, whose embeddings are rounded, and a default device would be taken for tensors that belong beside
    others. Can be used as a decorator.
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        for kind in _AUTOCASTING:
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        yield
