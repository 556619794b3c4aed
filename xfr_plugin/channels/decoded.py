"""Channel maps by decoding: what of the decoded face changes with one channel of the embedding.

After the channel-region correspondence of Xu, Lu and Ebrahimi (MMSP 2023, arXiv 2306.00402). With the decoder D and
the unit embedding e, the map of channel k is the mean over RGB of |D(e) − D(e with channel k replaced)|; or, as the
limit of small replacements, of |∂D/∂e_k|.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.errors import InputError
from xfr_plugin.reconstruction.network import to_input_size

__all__ = ["MapNorm", "Response", "channel_atlas", "decoded_changes", "normalised_maps", "sized_maps"]

Response: TypeAlias = Literal["ablation", "gradient"]
"""How a channel is tried: replaced, or varied infinitely little (Jacobian of the decoder, in forward mode)."""

MapNorm: TypeAlias = Literal["l1", "l2", "none"]
"""What of a map is made one: the sum of its magnitudes, the root of the sum of its squares, nothing."""

Decode: TypeAlias = Callable[[Tensor], Tensor]
"""Maps unit embeddings N×D to faces N×3×h×w, each on its own."""


def decoded_changes(
    decode: Decode,
    embeddings: Tensor,
    channels: Tensor,
    replacement: Tensor | float = 0.0,
    *,
    response: Response = "ablation",
    signed: bool = False,
    batch_size: int = 64,
) -> Tensor:
    """Where decoded faces change with chosen channels: N×K×h×w, at the decoder's size, not normalised.

    Args:
        decode: a `Decoder`, or any such function.
        embeddings: unit embeddings, N×D.
        channels: which channels of each embedding, N×K.
        replacement: what replaces a channel: a number, or values that broadcast to N×D. Not used by `gradient`.
        response: see `Response`. `ablation` gives D(e) − D(e replaced), `gradient` gives ∂D/∂e_k.
        signed: mean over RGB of the change itself (positive: brighter for the channel's being there, or for its
            growing), and not of its magnitude.
        batch_size: how many faces to decode at once; bounds memory.

    Raises:
        InputError: shapes or options that make no sense.
    """
    checked_choice("response", response, "ablation", "gradient")
    checked_at_least("batch_size", batch_size, 1)
    if embeddings.ndim != 2 or channels.ndim != 2 or len(channels) != len(embeddings):
        raise InputError(
            f"embeddings must be N×D and channels N×K, got {tuple(embeddings.shape)} and {tuple(channels.shape)}"
        )
    faces = torch.arange(len(embeddings), device=embeddings.device).repeat_interleave(channels.shape[1])
    flat = channels.to(embeddings.device).flatten()
    change = _jacobian(decode, embeddings)
    if response == "ablation":
        change = _ablation(decode, embeddings, replacement, batch_size)
    chunks = []
    for rows, columns in zip(faces.split(batch_size), flat.split(batch_size), strict=True):
        colours = change(rows, columns)
        chunks.append((colours if signed else colours.abs()).mean(dim=1))
    maps = torch.cat(chunks)
    return maps.view(*channels.shape, *maps.shape[1:])


def sized_maps(maps: Tensor, size: tuple[int, int], norm: MapNorm = "l1") -> Tensor:
    """Resize maps …×h×w bilinearly to `size` (height, width), then normalise them; a map of zeros stays so.

    Raises:
        InputError: an unknown norm.
    """
    checked_choice("norm", norm, "l1", "l2", "none")
    leading, shape = maps.shape[:-2], maps.shape[-2:]
    resized = to_input_size(maps.reshape(-1, 1, *shape), size).view(*leading, *size)
    return resized if norm == "none" else normalised_maps(resized, 1 if norm == "l1" else 2)


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


def channel_atlas(decode: Decode, embeddings: Tensor, batch_size: int = 64) -> Tensor:
    """Mean over embeddings (N×D) of the L1-normalised maps of all channels, set to zero, D×h×w; each sums to one.

    Raises:
        InputError: there are no embeddings.
    """
    if not len(embeddings):
        raise InputError("an atlas needs at least one embedding")
    every = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
    total = torch.zeros(())
    for embedding in embeddings:
        (maps,) = decoded_changes(decode, embedding[None], every, batch_size=batch_size)
        total = total + normalised_maps(maps).double()
    return normalised_maps(total / len(embeddings)).float()


Change: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From B faces and B channels, one of each, to the changes B×3×h×w."""


def _ablation(decode: Decode, embeddings: Tensor, replacement: Tensor | float, batch_size: int) -> Change:
    values = torch.as_tensor(replacement, dtype=embeddings.dtype, device=embeddings.device)
    try:
        values = values.expand_as(embeddings)
    except RuntimeError as error:
        raise InputError(
            f"what replaces channels has shape {tuple(values.shape)}, embeddings {tuple(embeddings.shape)}"
        ) from error
    with torch.no_grad():
        whole = torch.cat([decode(chunk) for chunk in embeddings.split(batch_size)])

    @torch.no_grad()
    def change(rows: Tensor, columns: Tensor) -> Tensor:
        ablated = embeddings[rows]
        ablated[torch.arange(len(rows), device=rows.device), columns] = values[rows, columns]
        return whole[rows] - decode(ablated)

    return change


def _jacobian(decode: Decode, embeddings: Tensor) -> Change:
    def change(rows: Tensor, columns: Tensor) -> Tensor:
        points = embeddings[rows]
        directions = torch.zeros_like(points)
        directions[torch.arange(len(rows), device=rows.device), columns] = 1
        with ignoring(FutureWarning, DeprecationWarning):  # of what torch itself loads at the first call
            # faces are decoded each on its own, so one forward-mode pass serves a whole batch of directions
            result: Tensor = torch.func.jvp(decode, (points,), (directions,))[1]
        return result.detach()

    return change
