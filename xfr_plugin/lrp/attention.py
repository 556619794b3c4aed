"""A canonizer for transformers: their functions get rules while they run, see `lrp.functions`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from zennit.core import Hook

from xfr_plugin.errors import InputError
from xfr_plugin.lrp.batchnorm import fold_batchnorms
from xfr_plugin.lrp.canonizers import FaceCanonizer
from xfr_plugin.lrp.functions import FunctionRules

__all__ = ["AttentionCanonizer", "is_transformer", "rule_of"]


class AttentionCanonizer(FaceCanonizer):
    """Give every function of a network a rule as it is called: of attention, layer normalisation, sums, activations.

    It serves networks that `FaceCanonizer` cannot read or has no rules for: ViT, Swin and ConvNeXt as in timm,
    torchvision and HuggingFace, `torch.nn.MultiheadAttention`, and networks like them. Modules with a rule of the
    composite keep it, and BatchNorm is folded where it can be. Functions without a rule are errors of the forward
    pass.

    Args:
        strict: see `FaceCanonizer`.
        stabilizer: ε of the functions' rules, for division only.

    Raises:
        InputError: (on `apply`) see `FaceCanonizer`.
    """

    def __init__(self, strict: bool = True, stabilizer: Any = 1e-6) -> None:
        super().__init__(strict)
        self.stabilizer = stabilizer
        self._used: set[nn.Module] | None = None

    def copy(self) -> AttentionCanonizer:
        """Return a canonizer of the same options."""
        return AttentionCanonizer(self.strict, self.stabilizer)

    def rewrite(self, root_module: nn.Module) -> None:
        """Make what the rules need: constant parameters, and forward functions within the context of the rules."""
        if any(isinstance(module, _BatchNorm) for module in root_module.modules()):
            fold_batchnorms(root_module, self.changes)
        for module in root_module.modules():
            _make_constant(module)
            if getattr(module, "inplace", False):
                self.changes.set_attribute(module, "inplace", False)
            if isinstance(module, nn.MultiheadAttention):
                self.changes.set_attribute(module, "forward", partial(_attend, module))
            elif not module._modules:
                self.changes.set_attribute(module, "forward", self._sparing(module, module.forward))
        self.changes.set_attribute(root_module, "forward", self._within_rules(root_module.forward))

    def _within_rules(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self._used = set()
            try:
                with FunctionRules(self.stabilizer):
                    return forward(*args, **kwargs)
            finally:
                self._used = None

        return run

    def _sparing(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A forward function whose calls get no rules if its module has one; that serves one call a pass."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if rule_of(module) is None:
                return forward(*args, **kwargs)
            if self._used is not None:
                self._note(module)
            with torch._C.DisableTorchFunction():
                return forward(*args, **kwargs)

        return run

    def _note(self, module: nn.Module) -> None:
        assert self._used is not None
        if module in self._used:
            raise InputError(
                f"a {type(module).__name__} is used several times, and a rule remembers one input: give each use a "
                "module of its own"
            )
        self._used.add(module)


def is_transformer(network: nn.Module) -> bool:
    """Whether a network has attention, or layer normalisation, which no linear layer can take in."""
    return any(
        isinstance(module, (nn.MultiheadAttention, nn.LayerNorm, nn.RMSNorm)) for module in network.modules()
    )


def rule_of(module: nn.Module) -> str | None:
    """Class of the rule that is registered with a module."""
    hooks = [getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values()]
    return next((type(hook).__name__ for hook in hooks if isinstance(hook, Hook)), None)


def _make_constant(module: nn.Module) -> None:
    """Parameters carry no relevance; `register` puts the old ones back."""
    for name, value in module._parameters.items():
        if value is not None:
            module._parameters[name] = nn.Parameter(value.detach(), requires_grad=False)


def _attend(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, None]:
    """Multi-head attention in functions that have rules. Weights are not returned."""
    if key_padding_mask is not None or module.bias_k is not None or module.add_zero_attn or query.ndim != 3:
        raise InputError(
            "no rule for MultiheadAttention with padding, bias_kv, zero attention or without batches: choose a "
            "method that needs no rules (see `xfr methods`)"
        )
    parts = query, key, value
    if not module.batch_first:
        parts = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    queries, keys, values = (
        functional.linear(part, *weights).unflatten(2, (module.num_heads, -1)).transpose(1, 2)
        for part, weights in zip(parts, _projections(module), strict=True)
    )
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = ~attn_mask  # which hides here, and shows there
    if attn_mask is not None and attn_mask.ndim == 3:
        attn_mask = attn_mask.unflatten(0, (-1, module.num_heads))
    is_causal = is_causal and attn_mask is None
    mixed = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=attn_mask, is_causal=is_causal
    )
    out = module.out_proj(mixed.transpose(1, 2).flatten(2))
    return out if module.batch_first else out.transpose(0, 1), None


def _projections(module: nn.MultiheadAttention) -> list[tuple[Tensor, Tensor | None]]:
    """Weight and bias of queries, keys and values."""
    if module.in_proj_weight is None:
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    else:
        weights = list(module.in_proj_weight.chunk(3))
    bias = module.in_proj_bias
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    return list(zip(weights, biases, strict=True))
