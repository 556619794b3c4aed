"""Composites for face networks, registered with Zennit as this module is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from zennit.canonizers import Canonizer
from zennit.composites import LayerMapComposite, SpecialFirstLayerMapComposite, register_composite
from zennit.core import Hook
from zennit.layer import Sum
from zennit.rules import Epsilon, Flat, Gamma, Norm, Pass, ZBox
from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear, MaxPool

from xfr_plugin.lrp.attention import AttentionCanonizer
from xfr_plugin.lrp.canonizers import FaceCanonizer, is_embedding_layer
from xfr_plugin.lrp.layers import Cosine, Elementwise, Gated, L2Normalize, Pooled, Shifted
from xfr_plugin.lrp.rules import (
    AffineRule,
    Exchanged,
    PassedOn,
    PReLURule,
    SignedPlus,
    SumPlus,
    Unchanged,
    WinnerTakesAll,
)

__all__ = ["AttentionFace", "EpsilonGammaBoxFace", "EpsilonPlusFlatFace", "ExcitationBackpropFace"]

LayerMap: TypeAlias = list[tuple[Any, Hook]]
"""Pairs of module types and the rule for them, as in Zennit; the first that fits counts."""

_SHAPES = (
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.modules.dropout._DropoutNd),
    *(nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
)


class _EmbeddingType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Linear) and is_embedding_layer(instance)


class EmbeddingLayer(metaclass=_EmbeddingType):
    """Type of the linear layers at the end of a canonized network; convolutions there are fully connected layers."""


class _FaceComposite(SpecialFirstLayerMapComposite):  # type: ignore[misc]  # Zennit is untyped
    def __init__(
        self,
        layer_map: LayerMap,
        first_map: LayerMap,
        canonizers: Sequence[Canonizer] | None,
    ) -> None:
        canonizers = [FaceCanonizer(strict=False)] if canonizers is None else list(canonizers)
        super().__init__(layer_map=layer_map, first_map=first_map, canonizers=canonizers)


def _base_map(stabilizer: Any, sums: Hook) -> LayerMap:
    return [
        (nn.PReLU, PReLURule(stabilizer)),
        ((Pooled, AvgPool), Norm(stabilizer=stabilizer)),
        ((Activation, Elementwise), PassedOn(stabilizer)),
        ((Gated, Shifted, L2Normalize, Cosine), Pass()),
        (Sum, sums),
        (BatchNorm, AffineRule(stabilizer)),
        (MaxPool, WinnerTakesAll()),
        (_SHAPES, Unchanged()),
    ]


@register_composite("epsilon_plus_flat_face")
class EpsilonPlusFlatFace(_FaceComposite):
    """Flat rule for the first layer, signed z⁺ for convolutions and sums, ε for the embedding layers.

    Args:
        epsilon: ε of the embedding and fully connected layers.
        stabilizer: ε of the other rules, for division only.
        layer_map: rules that go before those of the composite, as `(types, rule)`.
        first_map: rules that go before the flat rule for the first layer.
        zero_params: `["bias"]` keeps biases from absorbing relevance.
        canonizers: in place of `FaceCanonizer`, if given.
    """

    def __init__(
        self,
        epsilon: Any = 1e-6,
        stabilizer: Any = 1e-6,
        layer_map: LayerMap | None = None,
        first_map: LayerMap | None = None,
        zero_params: list[str] | None = None,
        canonizers: Sequence[Canonizer] | None = None,
    ) -> None:
        layers = [
            *(layer_map or []),
            *_base_map(stabilizer, SumPlus(stabilizer)),
            ((EmbeddingLayer, nn.Linear), Exchanged(Epsilon(epsilon=epsilon, zero_params=zero_params))),
            (Convolution, SignedPlus(stabilizer, zero_params)),
        ]
        first = [
            *(first_map or []),
            (Linear, Exchanged(Flat(stabilizer=stabilizer, zero_params=zero_params))),
        ]
        super().__init__(layers, first, canonizers)


@register_composite("epsilon_gamma_box_face")
class EpsilonGammaBoxFace(_FaceComposite):
    """Box rule for the first convolution, gamma for the others, ε for the embedding layers.

    Args:
        low: lowest value of a preprocessed image: a number, or a tensor 1×3×1×1.
        high: highest value of a preprocessed image. The defaults −1 and 1 are those of (x − 127.5)/127.5.
        gamma: how much positive weights count more (Zennit's generalised gamma rule).
        epsilon: as in `EpsilonPlusFlatFace`, like all others.
        stabilizer: see `epsilon`.
        layer_map: see `epsilon`.
        first_map: see `epsilon`.
        zero_params: see `epsilon`.
        canonizers: see `epsilon`.
    """

    def __init__(
        self,
        low: float | Tensor = -1.0,
        high: float | Tensor = 1.0,
        gamma: float = 0.25,
        epsilon: Any = 1e-6,
        stabilizer: Any = 1e-6,
        layer_map: LayerMap | None = None,
        first_map: LayerMap | None = None,
        zero_params: list[str] | None = None,
        canonizers: Sequence[Canonizer] | None = None,
    ) -> None:
        low, high = (torch.as_tensor(bound) for bound in (low, high))
        layers = [
            *(layer_map or []),
            *_base_map(stabilizer, SumPlus(stabilizer)),
            ((EmbeddingLayer, nn.Linear), Exchanged(Epsilon(epsilon=epsilon, zero_params=zero_params))),
            (Convolution, Gamma(gamma=gamma, stabilizer=stabilizer, zero_params=zero_params)),
        ]
        box = ZBox(low=low, high=high, stabilizer=stabilizer, zero_params=zero_params)
        super().__init__(layers, [*(first_map or []), (Convolution, box)], canonizers)


@register_composite("attention_face")
class AttentionFace(LayerMapComposite):  # type: ignore[misc]  # Zennit is untyped
    """AttnLRP (Achtibat et al., ICML 2024, arXiv 2402.05602): gamma for layers, and `lrp.functions` for all else.

    The paper takes the generalised gamma rule for vision transformers, against noise, and searches for the best
    values for each network. The defaults are of the range that its authors search (0.1 to 100, and 0 to 1); they were
    not chosen on faces. With both at 0 every layer has the ε rule.

    Args:
        conv_gamma: how much positive weights of convolutions count more.
        gamma: the same of linear layers.
        stabilizer: ε, for division only.
        layer_map: rules that go before those of the composite, as `(types, rule)`.
        zero_params: `["bias"]` keeps the biases of layers from absorbing relevance.
        canonizers: in place of `AttentionCanonizer`, if given.
    """

    def __init__(
        self,
        conv_gamma: float = 0.25,
        gamma: float = 0.05,
        stabilizer: Any = 1e-6,
        layer_map: LayerMap | None = None,
        zero_params: list[str] | None = None,
        canonizers: Sequence[Canonizer] | None = None,
    ) -> None:
        options = {"stabilizer": stabilizer, "zero_params": zero_params}
        layers = [
            *(layer_map or []),
            (Convolution, Gamma(gamma=conv_gamma, **options)),
            (Linear, Gamma(gamma=gamma, **options)),
        ]
        if canonizers is None:
            canonizers = [AttentionCanonizer(strict=False, stabilizer=stabilizer)]
        super().__init__(layer_map=layers, canonizers=list(canonizers))


@register_composite("excitation_backprop_face")
class ExcitationBackpropFace(_FaceComposite):
    """Excitation backpropagation (Zhang et al., ECCV 2016): signed z⁺ in every layer, without biases.

    Relevance is a probability: each output hands all of its own to the inputs that excite it. For outputs ≥ 0 this is
    the published rule; negative outputs, which the paper does not have, are excited by what makes them negative.

    Args:
        stabilizer: ε, for division only.
        layer_map: see `EpsilonPlusFlatFace`, like all others.
        first_map: see `layer_map`.
        zero_params: see `layer_map`; `["bias"]` unless given.
        canonizers: see `layer_map`.
    """

    def __init__(
        self,
        stabilizer: Any = 1e-6,
        layer_map: LayerMap | None = None,
        first_map: LayerMap | None = None,
        zero_params: list[str] | None = None,
        canonizers: Sequence[Canonizer] | None = None,
    ) -> None:
        layers = [
            *(layer_map or []),
            *_base_map(stabilizer, SumPlus(stabilizer)),
            (Linear, SignedPlus(stabilizer, ["bias"] if zero_params is None else zero_params)),
        ]
        super().__init__(layers, list(first_map or []), canonizers)
