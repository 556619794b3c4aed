"""Which recognizer this is: a checksum of what it computes with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["check_fingerprint", "fingerprint", "fingerprints_kept"]

_KEPT: ContextVar[dict[Recognizer, str] | None] = ContextVar("fingerprints", default=None)


def fingerprint(recognizer: Recognizer) -> str:
    """SHA-256 of what a recognizer computes with: weights, and preprocessing.

    Unlike the hash of a weight file it also exists for networks that were never a file.
    """
    kept = _KEPT.get()
    if kept is None:
        return _digest(recognizer)
    if recognizer not in kept:
        kept[recognizer] = _digest(recognizer)
    return kept[recognizer]


def check_fingerprint(recognizer: Recognizer, what: str, name: str, sha256: str, advice: str) -> None:
    """Make sure that a model was trained for a recognizer.

    Args:
        recognizer: that the model is to be used with.
        what: the model, in words.
        name: of the recognizer that it was trained for.
        sha256: that recognizer's `fingerprint`.
        advice: what to do if this is another one.

    Raises:
        InputError: this is another one.
    """
    if fingerprint(recognizer) != sha256:
        raise InputError(
            f"{what} was trained for recognizer {name!r}, not for this {recognizer.name!r}: {advice}"
        )


@contextmanager
def fingerprints_kept() -> Iterator[None]:
    """Compute each recognizer's fingerprint once in this block, during which its weights must not change."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def _digest(recognizer: Recognizer) -> str:
    digest = hashlib.sha256(repr((recognizer.input_size, recognizer.channel_order)).encode())
    tensors: dict[str, Tensor] = dict(recognizer.network.state_dict())
    tensors |= {"·mean": recognizer.mean, "·std": recognizer.std}
    for name in sorted(tensors):
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensors[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
