"""Networks all of whose activations get DeepLift's rescale rule, or which are refused.

The rule replaces the slope of an activation by the ratio of its differences. Captum applies it to the modules of its
list, and silently takes the plain gradient of all others, and of functions. Here every function is met as it is
called: those of a single number get the rule; those that are not linear otherwise, as attention and layer
normalisation, are errors.

Captum sets the gradient of an activation's input tensor as a whole. Where another layer reads that tensor too, as in
pre-activation blocks, its share would be lost: every activation of its list gets a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from xfr_plugin.base.captum import SUPPORTED_NON_LINEAR
from xfr_plugin.base.replicas import replica
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.exported import is_exported

__all__ = ["rectified_copy"]

Network = TypeVar("Network", bound=nn.Module)

_RESCALED = set(
    """
abs celu clamp clamp_max clamp_min clip elu exp gelu hardsigmoid hardswish hardtanh leaky_relu log logsigmoid mish
pow prelu relu relu6 rrelu rsqrt selu sigmoid silu softplus softsign sqrt square tanh tanhshrink threshold
""".split()  # noqa: SIM905  # a list of so many words is read as words
)
"""Functions of a single number."""

_REFUSED = set(
    """
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax glu group_norm instance_norm layer_norm
local_response_norm log_softmax max_pool1d max_pool2d max_pool3d maximum minimum multi_head_attention_forward
rms_norm scaled_dot_product_attention softmax softmin
""".split()  # noqa: SIM905  # as above
)
"""Functions of several numbers that are not linear. Division is not among them: by it embeddings are normalised,
which is taken by its gradient."""

_PRODUCTS = frozenset(("mul", "multiply", "imul", "matmul", "bmm", "baddbmm", "einsum"))

_EPSILON = 1e-10
"""Difference below which the slope is taken, as by Captum."""


def rectified_copy(network: Network) -> Network:
    """A replica of a network, of the same function, for Captum's DeepLift.

    Its backward pass is for a batch of which the second half are the baselines of the first.

    Raises:
        InputError: an exported network. Functions for which there is no rescale rule (attention, layer normalisation,
            products of signals …) are errors of the forward pass.
    """
    network = replica(network)
    if any(is_exported(part) for part in network.modules()):
        raise _refusal("exported networks, whose activations are no modules")
    for name, module in list(network.named_modules()):
        _make_constant(module)
        if getattr(module, "inplace", False):
            module.__dict__["inplace"] = False
        if type(module) in SUPPORTED_NON_LINEAR:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _Own(module))
    network.__dict__["forward"] = _ruled(network.forward)
    return network


class _Own(nn.Module):
    """An activation that Captum has a rule for."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, values: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            result: Tensor = self.activation(values.clone())
        return result


class _Rules(TorchFunctionMode):
    """Gives functions the rescale rule as they are called, and refuses those that it is not for."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, named = getattr(func, "__name__", ""), kwargs or {}
        signals = [given for given in (*args, *named.values()) if _is_signal(given)]
        plain = name.strip("_")
        if plain in _REFUSED and signals:
            raise _refusal(plain)
        if plain in _PRODUCTS and len(signals) > 1:
            raise _refusal(f"a product of two signals ({plain})")
        if plain not in _RESCALED or not signals:
            return func(*args, **named)
        is_method_in_place = name.endswith("_") and name != f"__{plain}__"
        is_in_place = is_method_in_place or any(given is True for given in (*args, *named.values()))
        if is_in_place or len(signals) > 1 or not (args and args[0] is signals[0]):
            raise _refusal(f"{plain} in place, or of several signals")
        return _Rescaled.apply(lambda values: func(values, *args[1:], **named), args[0])


class _Rescaled(Function):
    """A function of a single number, whose slope is the ratio of its differences."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        output = function(values)
        ctx.function = function
        ctx.save_for_backward(values, output)
        return output

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[None, Tensor]:
        values, output = ctx.saved_tensors
        with torch.enable_grad():
            leaf = values.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.function(leaf), leaf, given)
        inwards, outwards = _differences(values), _differences(output)
        is_flat = inwards.abs() < _EPSILON
        return None, torch.where(is_flat, slope, given * outwards / inwards.masked_fill(is_flat, 1))


def _differences(values: Tensor) -> Tensor:
    faces, baselines = values.chunk(2)
    return (faces - baselines).repeat(2, *(1,) * (values.ndim - 1))


def _is_signal(given: Any) -> bool:
    return isinstance(given, Tensor) and given.requires_grad


def _refusal(what: str) -> InputError:
    return InputError(
        f"DeepLift has no rule for {what}: use another method for this network, e.g. integrated gradients"
    )


def _ruled(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _Rules():
            return forward(*args, **kwargs)

    return run


def _make_constant(module: nn.Module) -> None:
    """Parameters are no signals."""
    for name, value in module._parameters.items():
        if value is not None:
            module._parameters[name] = nn.Parameter(value.detach(), requires_grad=False)
