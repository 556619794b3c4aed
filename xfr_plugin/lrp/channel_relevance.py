"""Relevance maps of every channel of an embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xfr_plugin.base.options import checked_at_least
from xfr_plugin.errors import InputError
from xfr_plugin.lrp.attributors import AttrOutput, EmbeddingAttributor
from xfr_plugin.lrp.propagation import channel_relevance

__all__ = ["ChannelRelevance"]


class ChannelRelevance(EmbeddingAttributor):
    """One relevance map for each channel: where on the face its value comes from.

    Channel k starts with its own relevance, the value e_k unless `attr_output` says otherwise, and all other
    channels with none. The network runs once and Zennit's rules a few times; each map is then a product with the
    recorded propagation (see `lrp.propagation`).

    A call takes M images and returns embeddings M×D and maps K×M×C×H×W of the K chosen channels. To see the maps
    a chunk at a time, and never hold all of them::

        with ChannelRelevance(network, composite).propagation(images) as propagation:
            for channels, maps in channel_relevance(propagation, propagation.output, chunk_size=8):
                ...

    Args:
        model: see `EmbeddingAttributor`.
        composite: see `EmbeddingAttributor`.
        attr_output: relevance M×D of the channels, or a function from the output to it; the output, if left out.
        channels: which channels, e.g. `range(0, 16)`; all, if left out.
        chunk_size: channels at once; memory grows with it.

    Raises:
        InputError: channels that are no range with step 1, or a `chunk_size` that is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        composite: Any | None = None,
        attr_output: AttrOutput | None = None,
        *,
        channels: range | None = None,
        chunk_size: int = 8,
    ) -> None:
        super().__init__(model, composite, attr_output)
        if channels is not None and (channels.step != 1 or channels.start < 0 or not len(channels)):
            raise InputError(f"channels must be a range with step 1, such as range(0, 16), got {channels}")
        self.channels = channels
        self.chunk_size = checked_at_least("chunk_size", chunk_size, 1)

    def forward(self, input: Tensor, attr_output_fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Propagate each channel's relevance; called by `__call__`, with the composite registered.

        Raises:
            InputError: the embedding has fewer channels than were chosen.
        """
        with self.propagation(input) as propagation:
            output = propagation.output
            if self.channels is not None and self.channels.stop > output.shape[1]:
                raise InputError(f"channels {self.channels} reach beyond the embedding's {output.shape[1]}")
            relevance = attr_output_fn(output)
            chunks = channel_relevance(propagation, relevance, self.chunk_size, self.channels)
            return output, torch.cat([maps for _, maps in chunks])
