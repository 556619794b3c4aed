"""Rules that Zennit lacks for face networks, as Zennit hooks.

Notation: x_i inputs, w_ij weights, b_j bias, z_j = Σ_i x_i w_ij + b_j, R_j relevance of an output. All rules are
linear in the relevance, and differentiable with respect to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from zennit.core import Hook, RemovableHandle, RemovableHandleList, Stabilizer
from zennit.layer import Sum

__all__ = [
    "AffineRule",
    "FlatRule",
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

    differentiates = False
    """Whether the rule asks for the gradient of what the module computed."""

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
        own = inputs[0].detach().requires_grad_(self.differentiates)
        return (own.clone() if getattr(module, "inplace", False) else own), *inputs[1:]

    def _attach(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.stored_tensors.clear()
        self.stored_tensors.update(input=inputs[0], output=output.detach(), graph=output)
        found: Tensor = _Ruled.apply(self._given, [output.detach()], self, module)
        self._given = None
        return found

    def copy(self) -> Any:
        return type(self)(self.stabilizer)

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

    differentiates = True

    def __init__(self, stabilizer: Any = 1e-6, zero_params: Sequence[str] | str | None = None) -> None:
        super().__init__(stabilizer)
        self.zero_params = zero_params

    def copy(self) -> SignedPlus:
        """Return a hook of the same options for another module."""
        return SignedPlus(self.stabilizer, self.zero_params)

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the inputs from that of the outputs."""
        relevance = grad_output[0]
        signs, is_left_out = self._signs(relevance), "bias" in self._zeros() and module.bias is not None
        if len(signs) * len(self._parts()) > 1 and not is_left_out:
            return (self._by_magnitudes(module, relevance),)
        return (self._by_parts(module, relevance, signs),)

    def _signs(self, relevance: Tensor) -> list[int]:
        """Signs of the outputs that have relevance: before a ReLU no negative one has any.

        A propagation that is recorded is for any relevance.
        """
        if relevance.requires_grad:
            return [1, -1]
        above = _where_positive(relevance, self.stored_tensors["output"])
        return [1] if torch.equal(above, relevance) else [1, -1]

    def _parts(self) -> dict[int, Tensor]:
        """The positive and the negative part of the input, as far as they are there, by sign."""
        if "parts" not in self.stored_tensors:
            x = self.stored_tensors["input"].detach()  # another object, which wants a gradient of its own
            has_negative = float(x.amin()) < 0
            parts = {sign: _part(x, sign) for sign in (1, -1)} if has_negative else {1: x}
            self.stored_tensors["parts"] = {sign: part.requires_grad_() for sign, part in parts.items()}
        found: dict[int, Tensor] = self.stored_tensors["parts"]
        return found

    def _by_parts(self, module: nn.Module, relevance: Tensor, signs: list[int]) -> Tensor:
        """The rule as it is written, for each sign of the outputs and of the inputs."""
        parts, z = self._parts(), self.stored_tensors["output"]
        totals, denominators = zip(*(self._total(module, sign) for sign in signs), strict=True)
        shares = [
            _where_positive(relevance, z if sign > 0 else -z) / denominator
            for sign, denominator in zip(signs, denominators, strict=True)
        ]
        gradients = torch.autograd.grad(
            totals, list(parts.values()), shares, retain_graph=True, create_graph=relevance.requires_grad
        )
        products = [
            part.detach() * gradient for part, gradient in zip(parts.values(), gradients, strict=True)
        ]
        return reduce(torch.add, products)

    def _total(self, module: nn.Module, sign: int) -> tuple[Tensor, Tensor]:
        """What the contributions of one sign add up to, and what divides it; kept for further passes."""
        name = f"total {sign}"
        if name not in self.stored_tensors:
            totals = [
                self._with(module, partial(_part, sign=sign * side), part, with_bias=side == 1)
                for side, part in self._parts().items()
            ]
            with torch.enable_grad():
                total = reduce(torch.add, totals)
            self.stored_tensors[name] = total, self._stable(total.detach())
        found: tuple[Tensor, Tensor] = self.stored_tensors[name]
        return found

    def _by_magnitudes(self, module: nn.Module, relevance: Tensor) -> Tensor:
        """The rule for inputs and outputs of either sign, in one pass forward and two back.

        What agrees with the sign of z_j = Σ_i x_i w_ij + b_j are (sign(z_j) z_j + Σ_i |x_i| |w_ij| + |b_j|) / 2, and
        so are the parts: x_i w_ij sign(z_j) and |x_i| |w_ij|, half of each. Split into positive and negative parts,
        inputs and weights take four passes each way.
        """
        magnitudes, total, scale = self._magnitudes(module)
        x, z = self.stored_tensors["input"], self.stored_tensors["output"]
        scaled = scale * relevance
        plain, absolute = torch.autograd.grad(
            [self.stored_tensors["graph"], total],
            [x, magnitudes],
            [scaled * z.sign(), scaled],
            retain_graph=True,
            create_graph=relevance.requires_grad,
        )
        return torch.addcmul(plain * x.detach(), absolute, magnitudes.detach())

    def _magnitudes(self, module: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the inputs, what those of contributions add up to, and half of 1 / what divides; kept as well."""
        if "magnitudes" not in self.stored_tensors:
            magnitudes = self.stored_tensors["input"].detach().abs().requires_grad_()
            total = self._with(module, Tensor.abs, magnitudes)
            z = self.stored_tensors["output"]
            agreeing = (total.detach() + z.abs()).mul_(0.5)
            half = z.sign().mul_(0.5).div_(self._stable(agreeing.copysign_(z)))
            self.stored_tensors["magnitudes"] = magnitudes, total, half
        found: tuple[Tensor, Tensor, Tensor] = self.stored_tensors["magnitudes"]
        return found

    def _with(
        self, module: nn.Module, change: Callable[[Tensor], Tensor], given: Tensor, with_bias: bool = True
    ) -> Tensor:
        """What a module gives with changed parameters."""
        zeros = (*self._zeros(), *(() if with_bias else ("bias",)))
        with torch.enable_grad(), _parameters(module, change, zeros):
            found: Tensor = module.forward(given)
        return found

    def _zeros(self) -> Sequence[str]:
        names = self.zero_params
        return [names] if isinstance(names, str) else list(names or ())


def _part(values: Tensor, sign: int) -> Tensor:
    return values.clamp(min=0) if sign > 0 else values.clamp(max=0)


def _where_positive(values: Tensor, place: Tensor) -> Tensor:
    """Values where `place` is positive, elsewhere 0; a ReLU's gradient, which takes less time than `torch.where`."""
    found: Tensor = torch.ops.aten.threshold_backward(values, place, 0)
    return found


@contextmanager
def _parameters(
    module: nn.Module, change: Callable[[Tensor], Tensor], zeros: Sequence[str]
) -> Iterator[None]:
    """Put changed parameters in the place of a module's own."""
    kept = dict(module._parameters)
    try:
        for name, value in kept.items():
            if value is not None:
                part = torch.zeros_like(value) if name in zeros else change(value.detach())
                module._parameters[name] = part  # type: ignore[assignment]  # a tensor does for a forward pass
        yield
    finally:
        module._parameters.update(kept)


class FlatRule(_StoringHook):
    """Zennit's `Flat` (Lapuschkin et al., Nature Communications 2019): all inputs of an output get equal parts.

    Where every output sees every colour, one map serves all outputs and all colours.
    """

    def backward(self, module: Any, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the inputs from that of the outputs."""
        relevance, x = grad_output[0], self.stored_tensors["input"]
        is_shared = isinstance(module, nn.Conv2d) and module.groups == 1
        ones = torch.ones_like(x[:, :1] if is_shared else x).requires_grad_()
        with torch.enable_grad():
            if is_shared:
                counts = module._conv_forward(ones, torch.ones_like(module.weight[:1, :1]), None)
                relevance = relevance.sum(1, keepdim=True)
            else:
                with _parameters(module, torch.ones_like, ("bias",)):
                    counts = module.forward(ones)
        colours = x.shape[1] if is_shared else 1
        shares = relevance / self._stable(counts.detach() * colours)
        (found,) = torch.autograd.grad(counts, ones, shares, create_graph=relevance.requires_grad)
        return (found.expand_as(x).contiguous(),)


class SumPlus(_StoringHook):
    """The signed z⁺ rule for a sum of branches (`zennit.layer.Sum`): the branches that agree with the sum share.

    R_i = x_i [sign x_i = sign z] / (Σ_i x_i [same] + ε) · R. Zennit's `Norm`, x_i / z · R, multiplies relevance of
    both signs where two branches nearly cancel.
    """

    def backward(self, module: Sum, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the stacked branches from that of their sum."""
        x, z = self.stored_tensors["input"], self.stored_tensors["output"].unsqueeze(module.dim)
        agreeing = _where_positive(x, x * z)
        scaled = grad_output[0] / self._stable(agreeing.sum(module.dim))
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

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the input from that of the output."""
        x, y = self.stored_tensors["input"], self.stored_tensors["output"]
        if x.data_ptr() == y.data_ptr() or torch.equal(x, y):  # it was folded away
            return (grad_output[0],)
        with torch.no_grad():
            shift = module.forward(torch.zeros_like(x[:1]))
        return (grad_output[0] * ((y - shift) / self._stable(y)),)


class PassedOn(_StoringHook):
    """Activations: relevance is passed on as it is, as by Zennit's `Pass`."""

    def backward(self, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Relevance of the input from that of the output."""
        return (grad_output[0],)


class WinnerTakesAll(Hook):  # type: ignore[misc]  # Zennit is untyped
    """Max-pooling: relevance goes where the maximum came from. That is its gradient, and here it is on purpose."""


class Unchanged(Hook):  # type: ignore[misc]  # Zennit is untyped
    """Flattening, dropout in evaluation, padding: relevance stays with its value, as the gradient does."""
