"""Which part of the face an embedding channel speaks about, by ablating it before decoding.

After the channel-region correspondence of Xu, Lu and Ebrahimi (MMSP 2023, arXiv 2306.00402).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError

__all__ = ["ablated", "channel_atlas", "channel_differences", "normalised_maps"]


def ablated(embedding: Tensor, value: Tensor | float = 0.0) -> Tensor:
    """Copies of one embedding (D), each with another channel replaced: D×D.

    Args:
        embedding: D.
        value: what replaces a channel: one number, or one for each channel (D), such as the dataset mean or
            the partner's embedding.

    Raises:
        InputError: the shapes do not fit.
    """
    replacement = torch.as_tensor(value, dtype=embedding.dtype, device=embedding.device)
    if embedding.ndim != 1 or (replacement.ndim and replacement.shape != embedding.shape):
        raise InputError(
            f"ablation takes one embedding (D) and a number or D values, got {tuple(embedding.shape)} "
            f"and {tuple(replacement.shape)}"
        )
    copies = embedding.repeat(len(embedding), 1)
    copies.diagonal().copy_(replacement.expand_as(embedding))
    return copies


@torch.no_grad()
def channel_differences(
    decoder: nn.Module, embedding: Tensor, value: Tensor | float = 0.0, batch_size: int = 64
) -> Tensor:
    """How decoding changes when a channel is ablated: mean over RGB of |D(e) − D(e ablated)|, D×h×w.

    Args:
        decoder: maps N×D to N×3×h×w.
        embedding: normalised, D.
        value: see `ablated`.
        batch_size: how many to decode at a time.
    """
    whole = decoder(embedding[None])
    without = ablated(embedding, value)
    chunks = [without[start : start + batch_size] for start in range(0, len(without), batch_size)]
    return torch.cat([(decoder(chunk) - whole).abs().mean(dim=1) for chunk in chunks])


def normalised_maps(maps: Tensor, order: int = 1) -> Tensor:
    """Divide each map of …×h×w by its L1 (`order` 1) or L2 (2) norm; a map of zeros stays so.

    Raises:
        InputError: another order.
    """
    if order not in (1, 2):
        raise InputError(f"maps are normalised by their L1 or L2 norm, not order {order}")
    norms = maps.flatten(-2).norm(p=order, dim=-1)[..., None, None]
    scaled: Tensor = maps / norms.clamp_min(torch.finfo(maps.dtype).tiny)
    return scaled


def channel_atlas(decoder: nn.Module, embeddings: Tensor, batch_size: int = 64) -> Tensor:
    """Mean over embeddings (N×D) of the L1-normalised difference maps, D×h×w; each map sums to one."""
    total = None
    for embedding in embeddings:
        maps = normalised_maps(channel_differences(decoder, embedding, batch_size=batch_size)).double()
        total = maps if total is None else total + maps
    if total is None:
        raise InputError("an atlas needs at least one embedding")
    return normalised_maps(total / len(embeddings)).float()
