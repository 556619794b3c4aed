"""Which recognizer this is: a checksum of what it computes with."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["fingerprint"]


def fingerprint(recognizer: Recognizer) -> str:
    """SHA-256 of what a recognizer computes with: weights, and preprocessing.

    Unlike the hash of a weight file it also exists for networks that were never a file.
    """
    digest = hashlib.sha256(repr((recognizer.input_size, recognizer.channel_order)).encode())
    tensors: dict[str, Tensor] = dict(recognizer.network.state_dict())
    tensors |= {"·mean": recognizer.mean, "·std": recognizer.std}
    for name in sorted(tensors):
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensors[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
