"""The two reconstruction classes for those who work with Zennit's attributors.

The maps are those of `attr.ReconstructionExplainer` and `attr.ReconstructionSaliency`; nothing is propagated
backwards. A composite is registered for the time of the call, and only matters if it changes what the
model computes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xfr_plugin.attr.reconstruction.explainer import DecoderSource, ReconstructionExplainer
from xfr_plugin.attr.reconstruction.saliency import ReconstructionSaliency
from xfr_plugin.errors import InputError
from xfr_plugin.lrp.private import PrivateAttributor

__all__ = ["ReconstructionAttributor", "SaliencyAttributor"]


class ReconstructionAttributor(PrivateAttributor):
    """Σ_k w_k M_k for each face, where M_k is the decoder's map of channel k.

    A call returns `(output, attribution)`: the embeddings N×D as the model gives them, and maps of the input's shape,
    whose sum over colours is the map. The weights w, N×D, are `attr_output`: one-hot rows pick one channel of each
    face. Left out, they are the output itself, as everywhere in Zennit. The channels whose weight is zero for every
    face are not decoded.

    Args:
        model: maps images N×C×H×W to embeddings N×D, normalised or not; a `Recognizer` brings its decoder.
        composite: Zennit composite.
        attr_output: weights N×D (or D, for all faces), or a function from the output to them.
        decoder: see `ReconstructionExplainer`.
        options: of `ReconstructionExplainer`, but for what the partner's embedding is needed for.

    Raises:
        InputError: see `ReconstructionExplainer`.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        composite: Any | None = None,
        attr_output: Tensor | Callable[[Tensor], Tensor] | None = None,
        *,
        decoder: DecoderSource = None,
        **options: Any,
    ) -> None:
        super().__init__(model=model, composite=composite, attr_output=attr_output)
        if options.get("ablation") == "partner":
            raise InputError("an attributor takes no partner: use attr.ReconstructionExplainer")
        self.explainer = ReconstructionExplainer(model, decoder, **options)

    @torch.no_grad()
    def forward(self, input: Tensor, attr_output_fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Weigh the maps of all channels; Zennit's `__call__` comes here.

        Raises:
            InputError: weights that are not N×D or D.
        """
        output: Tensor = self.model(input)
        weights = torch.as_tensor(attr_output_fn(output)).to(output)
        if weights.shape not in (output.shape, output.shape[1:]):
            raise InputError(
                f"attr_output must be {'×'.join(map(str, output.shape))}, got {tuple(weights.shape)}"
            )
        weights = weights.expand_as(output)
        channels = weights.any(dim=0).nonzero()[:, 0]
        grey = torch.zeros_like(input[:, :1])
        if len(channels):
            maps = self.explainer.embedding_maps(output, channels, (input.shape[2], input.shape[3])).to(input)
            grey = torch.einsum("nk,nkhw->nhw", weights[:, channels].to(input), maps)[:, None]
        return output, (grey / input.shape[1]).expand_as(input).contiguous()


class SaliencyAttributor(PrivateAttributor):
    """Similarity saliency of faces against their partners, see `attr.ReconstructionSaliency`.

    A call returns `(output, attribution)`: the embeddings N×D as the model gives them, and signed maps of the input's
    shape. The partners' embeddings N×D (or D, for all faces) are `attr_output`; left out, they are the output itself,
    as everywhere in Zennit, and each face is compared with itself.

    Args:
        model: maps images N×C×H×W to embeddings N×D, normalised or not; a `Recognizer` brings its decoder and
            its threshold.
        composite: Zennit composite.
        attr_output: embeddings N×D or D, or a function from the output to them.
        threshold: see `PairAttribution`.
        options: of `ReconstructionSaliency`.

    Raises:
        InputError: see `ReconstructionSaliency`.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        composite: Any | None = None,
        attr_output: Tensor | Callable[[Tensor], Tensor] | None = None,
        *,
        threshold: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model=model, composite=composite, attr_output=attr_output)
        self.saliency = ReconstructionSaliency(model, threshold, **options)

    @torch.no_grad()
    def forward(self, input: Tensor, attr_output_fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Explain each face against its partner; Zennit's `__call__` comes here.

        Raises:
            InputError: partners that are not N×D or D.
        """
        output: Tensor = self.model(input)
        partners = torch.as_tensor(attr_output_fn(output)).to(output)
        saliency = copy.copy(self.saliency)
        saliency.forward_func = self.model  # with the composite
        maps: Tensor = saliency.attribute(input, additional_forward_args=partners)
        return output, maps
