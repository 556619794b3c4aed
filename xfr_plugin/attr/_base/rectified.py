"""DeepLift's rescale rule (Shrikumar et al., ICML 2017, arXiv 1704.02685) for every activation, or a refusal.

The rule replaces the slope of an activation by the ratio of its differences from the baseline. Every function is met
as it is called: those of a single number, and the greatest of several, get the rule; those that are not linear
otherwise, as attention and layer normalisation, are errors. Captum's DeepLift has the rule for the modules of a
list, silently takes the plain gradient of all others, and of functions, and carries the baselines through the
backward pass. Here they pass forward once, and where all are alike, as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from xfr_plugin.base.replicas import parts_of, replica
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.exported import is_exported

__all__ = ["Call", "multipliers", "recorded"]

_RESCALED = set(
    """
abs celu clamp clamp_max clamp_min clip elu exp gelu hardsigmoid hardswish hardtanh leaky_relu log logsigmoid mish
pow prelu relu relu6 rrelu rsqrt selu sigmoid silu softplus softsign sqrt square tanh tanhshrink threshold
""".split()  # noqa: SIM905  # a list of so many words is read as words
)
"""Functions of a single number."""

_POOLED = frozenset(("max_pool1d", "max_pool2d", "max_pool3d"))

_REFUSED = set(
    """
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax glu group_norm instance_norm layer_norm
local_response_norm log_softmax maximum minimum multi_head_attention_forward rms_norm
scaled_dot_product_attention softmax softmin
""".split()  # noqa: SIM905  # as above
)
"""Functions of several numbers that are not linear. Division is not among them: by it embeddings are normalised,
which is taken by its gradient."""

_PRODUCTS = frozenset(("mul", "multiply", "imul", "matmul", "bmm", "baddbmm", "einsum"))

_EPSILON = 1e-10
"""Difference below which the slope is taken, as by Captum."""

_OTHERS = "DeepLift needs a network that calls the same functions for every image"


def multipliers(network: nn.Module, given: tuple[Any, ...], calls: Sequence[Call]) -> Tensor:
    """What each input contributes, for each unit by which it differs from its baseline, M×….

    Where the network is linear after its last activation, Σ (input − baseline) · multiplier is the difference of its
    output from that of the baseline.

    Args:
        network: maps M×… to M numbers; it is left as it is.
        given: the inputs M×…, and further arguments of the network.
        calls: of the baselines, see `recorded`.

    Raises:
        InputError: the network has functions for which there is no rescale rule (attention, layer normalisation,
            products of signals …), or calls others for the baseline than for the input.
    """
    inputs, left = given[0].detach().clone().requires_grad_(), list(calls)
    with torch.enable_grad():
        with _Ruled(left):
            output = _constant(network)(inputs, *given[1:])
        if left:
            raise InputError(_OTHERS)
        found: Tensor = torch.autograd.grad(output.sum(), inputs)[0]
    return found


def recorded(network: nn.Module, reference: tuple[Any, ...]) -> list[Call]:
    """What the activations of a network do to its baselines.

    Args:
        network: see `multipliers`.
        reference: the baselines M×…, or one that all have, 1×…, and further arguments of the network.

    Raises:
        InputError: see `multipliers`.
    """
    calls: list[Call] = []
    with torch.enable_grad(), _Recorded(calls):
        _constant(network)(reference[0].detach().clone().requires_grad_(), *reference[1:])
    return calls


def _constant(network: nn.Module) -> nn.Module:
    """A network whose parameters are no signals, and whose modules change nothing in place; a replica, if need be.

    Raises:
        InputError: a network whose functions are not seen as they are called.
    """
    parts = parts_of(network)
    if any(is_exported(part) or isinstance(part, torch.jit.ScriptModule) for part in parts):
        raise _refusal("exported and scripted networks, whose activations are not seen")
    if not any(
        getattr(part, "inplace", False) or any(map(_is_signal, part._parameters.values())) for part in parts
    ):
        return network
    network = replica(network)
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(value.detach(), requires_grad=False)
        if getattr(module, "inplace", False):
            module.__dict__["inplace"] = False
    return network


Call = tuple[str, Tensor, Tensor]
"""Name of an activation, what it was given, and what it returned."""


class _Functions(TorchFunctionMode):
    """Meets functions as they are called; refuses those that the rule is not for."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls

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
        if plain not in _RESCALED | _POOLED or not signals:
            return func(*args, **named)
        is_method_in_place = name.endswith("_") and name != f"__{plain}__"
        is_in_place = is_method_in_place or any(given is True for given in (*args, *named.values()))
        if is_in_place or len(signals) > 1 or not (args and args[0] is signals[0]):
            raise _refusal(f"{plain} in place, or of several signals")
        return self._called(plain, lambda values: func(values, *args[1:], **named), args[0])

    def _called(self, name: str, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        raise NotImplementedError


class _Recorded(_Functions):
    """Notes what activations do to the baselines."""

    def _called(self, name: str, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        output = function(values)
        self.calls.append((name, values.detach(), output.detach()))
        return output


class _Ruled(_Functions):
    """Gives activations the rescale rule, against what was noted."""

    def _called(self, name: str, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        noted, before, after = self.calls.pop(0) if self.calls else ("", values, values)
        if noted != name or before.shape[1:] != values.shape[1:]:
            raise InputError(_OTHERS)
        rule: type[Function] = _Pooled if name in _POOLED else _Rescaled
        output: Tensor = rule.apply(function, values, before, after)
        return output


class _Rescaled(Function):
    """A function of a single number, whose slope is the ratio of its differences."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[[Tensor], Tensor], values: Tensor, before: Tensor, after: Tensor
    ) -> Tensor:
        output = function(values)
        ctx.function = function
        ctx.save_for_backward(values, output, before, after)
        return output

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[None, Tensor, None, None]:
        values, output, before, after = ctx.saved_tensors
        change = (output - after).mul_(given)
        return None, _shared(ctx.function, values, before, given, change), None, None


class _Pooled(_Rescaled):
    """The greatest of several numbers: the face's gains what it lies above the baseline's, which loses the rest."""

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[None, Tensor, None, None]:
        values, output, before, after = ctx.saved_tensors
        greater, rows = torch.maximum(output, after), values.shape[0]
        gained = _gradient(ctx.function, values, given * (greater - after))
        lost = _gradient(ctx.function, before.expand(rows, *before.shape[1:]), given * (output - greater))
        return None, _shared(ctx.function, values, before, given, gained + lost), None, None


def _shared(
    function: Callable[[Tensor], Tensor], values: Tensor, before: Tensor, given: Tensor, change: Tensor
) -> Tensor:
    """The change for each unit by which a value differs from the baseline; the gradient where it does not."""
    inwards = values - before
    shared = change.div_(inwards)
    if inwards.abs_().amin() >= _EPSILON:  # in less time than `any` of what lies below takes
        return shared
    return torch.where(inwards < _EPSILON, _gradient(function, values, given), shared)


def _gradient(function: Callable[[Tensor], Tensor], values: Tensor, given: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = values.detach().requires_grad_()
        # where it is given cotangents, torch imports SymPy, for longer than a call takes
        (found,) = torch.autograd.grad((function(leaf) * given).sum(), leaf)
    return found


def _is_signal(given: Any) -> bool:
    return isinstance(given, Tensor) and given.requires_grad


def _refusal(what: str) -> InputError:
    return InputError(
        f"DeepLift has no rule for {what}: use another method for this network, e.g. integrated gradients"
    )
