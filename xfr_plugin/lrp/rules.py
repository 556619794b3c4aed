"""Rules that Zennit lacks for face networks, as Zennit hooks.

Notation: x_i inputs, w_ij weights, b_j bias, z_j = Σ_i x_i w_ij + b_j, R_j relevance of an output. All rules are
linear in the relevance, and differentiable with respect to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from zennit.core import BasicHook, Hook, RemovableHandle, RemovableHandleList, Stabilizer
from zennit.layer import Sum

from xfr_plugin.lrp.batchnorm import folded_away

__all__ = [
    "AffineRule",
    "Exchanged",
    "PReLURule",
    "PassedOn",
    "SignedPlus",
    "SumPlus",
    "Unchanged",
    "WinnerTakesAll",
]


class _Ruled(Function):
    """What a module computed, without its gradient; the gradient here is the relevance that a hook makes."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, computed: list[Tensor], hook: _StoringHook, module: nn.Module
    ) -> Tensor:
        ctx.hook, ctx.module = hook, module
        return computed[0]

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> Any:
        (found,) = ctx.hook.backward(ctx.module, (None,), relevance)
        return found, None, None, None


class _StoringHook(Hook):  # type: ignore[misc]  # Zennit is untyped
    """A hook that keeps what its module saw, and takes the place of its gradient.

    Zennit's own way is to exchange the gradient once it was computed, a pass more, between copies of the input.
    """

    def __init__(self, stabilizer: Any = 1e-6) -> None:
        super().__init__()
        self.stabilizer = stabilizer
        self._given: Tensor | None = None

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Put the rule onto a module."""
        handles = [module.register_forward_pre_hook(self._cut), module.register_forward_hook(self._attach)]
        return RemovableHandleList([RemovableHandle(self), *handles])

    def _cut(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._given = inputs[0]
        own = inputs[0].detach()
        return (own.clone() if getattr(module, "inplace", False) else own), *inputs[1:]

    def _attach(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.stored_tensors.clear()
        self.stored_tensors.update(input=inputs[0], output=output.detach())
        found: Tensor = _Ruled.apply(self._given, [output.detach()], self, module)
        self._given = None
        return found

    def copy(self) -> Any:
        return type(self)(self.stabilizer)

    def _stable_of(self, denominator: Tensor, sign: int) -> Tensor:
        """As `_stable`, of a denominator that has this sign where it is not 0."""
        if isinstance(self.stabilizer, (int, float)):
            return denominator + sign * self.stabilizer
        return self._stable(denominator)

    def _stable(self, denominator: Tensor) -> Tensor:
        if isinstance(self.stabilizer, (int, float)):
            return denominator + torch.copysign(denominator.new_tensor(self.stabilizer), denominator)
        stable: Tensor = Stabilizer.ensure(self.stabilizer)(denominator)
        return stable


class SignedPlus(_StoringHook):
    """z⁺ for outputs of either sign: only what agrees with the sign of an output gets its relevance.

    R_i = Σ_j x_i w_ij [sign(x_i w_ij) = sign(z_j)] / (Σ_i x_i w_ij [same] + b_j [same] + ε) · R_j

    Where outputs are positive this is the z⁺ rule (Bach et al., PLOS ONE 2015; Montavon et al., Pattern Recognition
    2017), also for negative inputs. The usual z⁺ gives the relevance of a negative output to what made it *less*
    negative; linear bottlenecks, PReLU and embeddings have many of those. It is the limit of the generalised gamma
    rule (Andéol et al., arXiv 2106.03308) for an infinite gamma. Shares are at most 1: relevance never grows.

    What the rule needs of a forward pass is computed at the first backward pass and kept for further ones.

    Args:
        stabilizer: ε, or a function of the denominator (Zennit's convention).
        zero_params: `["bias"]` leaves the bias out of the denominator: then it absorbs nothing.
    """

    def __init__(self, stabilizer: Any = 1e-6, zero_params: Sequence[str] | str | None = None) -> None:
        super().__init__(stabilizer)
        self.zero_params = zero_params

    def copy(self) -> SignedPlus:
        """Return a hook of the same options for another module."""
        return SignedPlus(self.stabilizer, self.zero_params)

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the inputs from that of the outputs."""
        relevance, parts = grad_output[0], self._parts()
        shares = [self._share(module, sign) for sign in self._signs(relevance)]
        gradients = torch.autograd.grad(
            [share.total for share in shares],
            list(parts.values()),
            [share.scale * relevance for share in shares],
            retain_graph=True,
            create_graph=relevance.requires_grad,
        )
        first, *others = zip(parts.values(), gradients, strict=True)
        found = first[0].detach() * first[1]
        return (reduce(lambda sum, other: torch.addcmul(sum, other[0].detach(), other[1]), others, found),)

    def _signs(self, relevance: Tensor) -> list[int]:
        """Signs of the outputs that have relevance: before a ReLU no negative one has any.

        A propagation is recorded with random relevance, which reaches all that any relevance can reach.
        """
        of_negative = self.stored_tensors["output"].clamp(max=0) * relevance.detach()
        is_met = bool(of_negative.amin() < 0) or bool(of_negative.amax() > 0)  # `torch.aminmax` is slower
        return [1, -1] if is_met else [1]

    def _parts(self) -> dict[int, Tensor]:
        """The positive and the negative part of the input, as far as they are there, by sign."""
        found: dict[int, Tensor] | None = self.stored_tensors.get("parts")
        if found is None:
            x = self.stored_tensors["input"].detach()
            low = float(x.amin())
            signs = [1] if low >= 0 else [1, -1] if float(x.amax()) > 0 else [-1]
            parts = {sign: _part(x, sign) if len(signs) > 1 else x.detach() for sign in signs}
            found = self.stored_tensors["parts"] = {
                sign: part.requires_grad_() for sign, part in parts.items()
            }
        return found

    def _share(self, module: nn.Module, sign: int) -> _Share:
        """What the contributions of one sign add up to; kept for further passes."""
        name = f"share {sign}"
        if name not in self.stored_tensors:
            totals = []
            for side, part in self._parts().items():
                with torch.enable_grad(), _parameters(module, sign * side, side == 1, self.zero_params):
                    totals.append(module.forward(part))
            with torch.enable_grad():
                total = reduce(torch.add, totals)
            z = self.stored_tensors["output"]
            scale = self._stable_of(total.detach(), sign).reciprocal()
            self.stored_tensors[name] = _Share(total, _where_positive(scale, z if sign > 0 else -z))
        share: _Share = self.stored_tensors[name]
        return share


@dataclass
class _Share:
    """What contributions of one sign add up to, a linear function of the input's parts, and what divides it."""

    total: Tensor
    scale: Tensor


def _where_positive(values: Tensor, place: Tensor) -> Tensor:
    """Values where `place` is positive, elsewhere 0; a ReLU's gradient, which takes less time than `torch.where`."""
    found: Tensor = torch.ops.aten.threshold_backward(values, place, 0)
    return found


def _part(tensor: Tensor, sign: int) -> Tensor:
    return tensor.clamp(min=0) if sign > 0 else tensor.clamp(max=0)


@contextmanager
def _parameters(
    module: nn.Module, sign: int, with_bias: bool, zero_params: Sequence[str] | str | None
) -> Iterator[None]:
    """Put the positive or negative part of the parameters in their place."""
    zeros = [zero_params] if isinstance(zero_params, str) else list(zero_params or ())
    zeros += [] if with_bias else ["bias"]
    kept = dict(module._parameters)
    try:
        for name, value in kept.items():
            if value is not None:
                part = torch.zeros_like(value) if name in zeros else _part(value.detach(), sign)
                module._parameters[name] = part  # type: ignore[assignment]  # a tensor does for a forward pass
        yield
    finally:
        module._parameters.update(kept)


class SumPlus(_StoringHook):
    """The signed z⁺ rule for a sum of branches (`zennit.layer.Sum`): the branches that agree with the sum share.

    R_i = x_i [sign x_i = sign z] / (Σ_i x_i [same] + ε) · R. Zennit's `Norm`, x_i / z · R, multiplies relevance of
    both signs where two branches nearly cancel.
    """

    def backward(self, module: Sum, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the stacked branches from that of their sum."""
        x, z = self.stored_tensors["input"], self.stored_tensors["output"].unsqueeze(module.dim)
        agreeing = _where_positive(x, x * z)
        scaled = grad_output[0] / self._stable(reduce(torch.add, agreeing.unbind(module.dim)))
        return (agreeing * scaled.unsqueeze(module.dim),)


class PReLURule(_StoringHook):
    """PReLU as the linear function that it is at its input: R_x = s x / (y + ε sign y) · R_y, s = 1 or the slope.

    The ε rule (Bach et al., PLOS ONE 2015) for y = s·x. With one input and no bias nothing can be split or absorbed,
    so wherever |y| ≫ ε this equals passing relevance through (the identity rule of Achtibat et al., ICML 2024,
    arXiv 2402.05602). The slope decides at its limits: a slope of 0 makes y = 0 and lets nothing through.
    """

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the input from that of the output."""
        y = self.stored_tensors["output"]
        return (grad_output[0] * (y / self._stable(y)),)


class AffineRule(_StoringHook):
    """The ε rule for y = s·x + t, value by value, with s and t fixed: R_x = s x / (y + ε sign y) · R_y.

    For a BatchNorm that could not be folded into its neighbours. The shift t absorbs the rest; where s·x and t nearly
    cancel, relevance grows (Hui and Binder, IWANN 2019). A folded BatchNorm passes relevance on.
    """

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Put the rule onto a module."""
        if module.__dict__.get("forward") is not folded_away:
            return super().register(module)
        named = module.register_forward_pre_hook(self._leave)
        return RemovableHandleList([RemovableHandle(self), named])

    def _leave(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Of what was folded there is nothing to be stored; its gradient is that of the identity."""

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the input from that of the output."""
        x, y = self.stored_tensors["input"], self.stored_tensors["output"]
        if x.data_ptr() == y.data_ptr() or torch.equal(x, y):  # it was folded away
            return (grad_output[0],)
        with torch.no_grad():
            shift = module.forward(torch.zeros_like(x[:1]))
        return (grad_output[0] * ((y - shift) / self._stable(y)),)


class Exchanged(_StoringHook):
    """A rule of Zennit's, without the gradient that Zennit computes first, to exchange it for the relevance."""

    def __init__(self, rule: BasicHook) -> None:
        super().__init__()
        self.rule = rule

    def copy(self) -> Exchanged:
        """Return a hook of the same options for another module."""
        return Exchanged(self.rule.copy())

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the input from that of the output."""
        given = (self.stored_tensors["input"],)
        self.rule.stored_tensors["input"] = given
        (found,) = self.rule.backward(module, given, grad_output)
        self.rule.remove()
        return (found,)


class PassedOn(_StoringHook):
    """Activations: relevance is passed on as it is, as by Zennit's `Pass`."""

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the input from that of the output."""
        return (grad_output[0],)


class WinnerTakesAll(Hook):  # type: ignore[misc]  # Zennit is untyped
    """Max-pooling: relevance goes where the maximum came from. That is its gradient, and here it is on purpose."""


class Unchanged(Hook):  # type: ignore[misc]  # Zennit is untyped
    """Flattening, dropout in evaluation, padding: relevance stays with its value, as the gradient does."""
