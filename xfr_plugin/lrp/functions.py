"""Rules for functions, given while a network runs: AttnLRP (Achtibat et al., ICML 2024, arXiv 2402.05602).

Transformers compute much outside of modules, and in ways that depend on shapes, so that their forward functions
cannot be read beforehand. Here every function of torch that a network calls is met as it is called
(`torch.overrides.TorchFunctionMode`), and what carries relevance gets the rule of its function:

- affine functions, and sums of signals: ε rule. A constant that is added, such as the embedding of positions, absorbs
  its share as a bias does;
- products of two signals, of matrices or value by value: ε and half to each (propositions 3.2 and 3.3);
- softmax: first-order Taylor expansion at its input, R_i = x_i (R_i − s_i Σ_j R_j), whose constant term absorbs the
  rest (proposition 3.1);
- layer normalisation: its deviation counts as a constant, the rest is affine (proposition 3.4);
- activations, multiplication by a constant, L2 normalisation: relevance is passed on;
- what moves values about: relevance follows them.

Any other function is an error. What carries relevance is what requires a gradient: parameters must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode
from zennit.core import Stabilizer

from xfr_plugin.errors import InputError

__all__ = ["FunctionRules"]

Relevance: TypeAlias = Callable[[Sequence[Tensor], Tensor, Tensor], Sequence[Tensor]]
"""From signals, output, and relevance of the output to that of the signals."""

_NAMES = {
    "moving": "adaptive_max_pool2d cat chunk clone contiguous double dropout dropout1d dropout2d expand expand_as "
    "flatten flip float get getitem half index_select masked_fill max_pool2d movedim narrow pad permute "
    "pixel_shuffle pixel_unshuffle repeat reshape roll select split squeeze stack swapaxes t tile to transpose "
    "type type_as unbind unflatten unsqueeze view view_as where",
    "passing": "celu clamp clamp_max clamp_min elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish "
    "mul multiply neg normalize prelu relu relu6 rmul selu sigmoid silu softplus tanh threshold",
    "affine": "adaptive_avg_pool1d adaptive_avg_pool2d add avg_pool2d interpolate mean radd rsub sub subtract sum",
    "layer": "batch_norm conv1d conv2d conv_transpose2d linear",
    "product": "bmm einsum matmul mm rmatmul",
    "quotient": "div divide truediv",
    "norm": "layer_norm rms_norm",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
"""Kind of a function by its name; a method, a function and an operator of one name compute the same."""


class FunctionRules(TorchFunctionMode):
    """Within this context, functions of signals are computed as always, and give relevance by their rules.

    Args:
        stabilizer: ε, or a function of the denominator (Zennit's convention).
    """

    def __init__(self, stabilizer: Any = 1e-6) -> None:
        super().__init__()
        self._changed: list[Tensor] = []
        self._stable: Callable[[Tensor], Tensor] = Stabilizer.ensure(stabilizer)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch.

        Raises:
            InputError: it has no rule.
        """
        given = dict(kwargs or {})
        signals = [part for part in _tensors((args, given)) if part.requires_grad]
        if not signals:
            return func(*args, **given)
        if any(signal is changed for signal in signals for changed in self._changed):
            raise InputError("no rule for a value that is used again after it was changed in place")
        func, name = self._out_of_place(func, args)
        given = {key: False if key == "inplace" else value for key, value in given.items()}
        if name == "scaled_dot_product_attention":
            return self._attention(*args, **given)
        call = _Call(func, args, given)
        relevance = self._rule(name, call)
        if relevance is not None:
            return _Ruled.apply(call, relevance, *call.signals)
        output = func(*args, **given)
        if _KINDS.get(name) != "moving" and any(part.requires_grad for part in _tensors(output)):
            raise InputError(
                f"no rule for the function {name}, which would silently give its gradient: choose a method that "
                "needs no rules (see `xfr methods`)"
            )
        return output

    def _out_of_place(self, func: Callable[..., Any], args: Sequence[Any]) -> tuple[Callable[..., Any], str]:
        """The function, or what computes the same and leaves its argument as it is; and its name.

        `x += y` calls `x.add_(y)` and takes the result. Whoever uses x itself after that is told by `_changed`.
        """
        name = getattr(func, "__name__", str(func))
        plain = name.strip("_")
        if not name.endswith("_") or name.endswith("__") or plain not in _KINDS:
            return func, name if name.endswith("_") and not name.endswith("__") else plain
        self._changed.append(args[0])
        return getattr(Tensor, plain), plain

    def _rule(self, name: str, call: _Call) -> Relevance | None:
        """How a function of signals gives relevance, None if there is no rule."""
        kind = _KINDS.get(name)
        if kind in ("layer", "norm") and len(call.signals) > 1:
            return None  # weights that depend on the image
        if kind in ("affine", "layer"):
            return self._affine(call)
        if kind == "product":
            return self._affine(call, share=len(call.signals))
        if kind == "passing":
            return _shared
        if kind == "quotient":
            return _to_dividend if call.args and _carries(call.args[0]) else None
        if kind == "norm":
            return self._affine(_with_fixed_scale(name, call))
        return _softmax(call.argument(1, "dim")) if name == "softmax" else None

    def _affine(self, function: Callable[..., Tensor], share: int = 1) -> Relevance:
        """ε rule for a function that is affine in each signal: x · ∂z/∂x of R / (`share` z)."""

        def relevance(signals: Sequence[Tensor], output: Tensor, given: Tensor) -> Sequence[Tensor]:
            leaves = [signal.detach().requires_grad_() for signal in signals]
            with torch.enable_grad():
                again = function(*leaves)
            scaled = given / (share * self._stable(output))
            gradients = torch.autograd.grad(again, leaves, scaled, create_graph=given.requires_grad)
            return [leaf.detach() * gradient for leaf, gradient in zip(leaves, gradients, strict=True)]

        return relevance

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attention from its parts, each with its rule. There is no dropout in evaluation."""
        if enable_gqa:
            raise InputError("no rule for attention of grouped queries")
        with self:
            scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
            if is_causal:
                scores = scores.masked_fill(_later(scores), float("-inf"))
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, float("-inf"))
            elif attn_mask is not None:
                scores = scores + attn_mask
            mixed: Tensor = scores.softmax(dim=-1) @ value
        return mixed


def _later(scores: Tensor) -> Tensor:
    return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)


class _Call:
    """A call of a function, as a function of those arguments that carry relevance."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, list(args), dict(kwargs)
        self._places = [i for i, part in enumerate(self.args) if _carries(part)]
        self._names = [name for name, part in self.kwargs.items() if _carries(part)]

    @property
    def signals(self) -> list[Tensor]:
        """Arguments that carry relevance."""
        return [*(self.args[i] for i in self._places), *(self.kwargs[name] for name in self._names)]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument that is given by place or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def __call__(self, *signals: Tensor) -> Any:
        args, kwargs = list(self.args), dict(self.kwargs)
        for i, signal in zip(self._places, signals, strict=False):
            args[i] = signal
        kwargs.update(zip(self._names, signals[len(self._places) :], strict=True))
        return self.function(*args, **kwargs)


class _Ruled(Function):
    """A function whose gradient is relevance."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], relevance: Relevance, *signals: Tensor) -> Tensor:
        output = function(*signals)
        ctx.save_for_backward(*signals, output)
        ctx.relevance = relevance
        return output

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Any:
        *signals, output = (value.detach() for value in ctx.saved_tensors)
        return (None, None, *ctx.relevance(signals, output, given))


def _shared(signals: Sequence[Tensor], output: Tensor, given: Tensor) -> Sequence[Tensor]:
    """The same to each signal: all to the only one, half to each of two factors."""
    return [(given / len(signals)).sum_to_size(signal.shape) for signal in signals]


def _to_dividend(signals: Sequence[Tensor], output: Tensor, given: Tensor) -> Sequence[Tensor]:
    """All to the dividend: what it is divided by counts as a constant."""
    first, *others = signals
    return [given.sum_to_size(first.shape), *map(torch.zeros_like, others)]


def _softmax(dim: int) -> Relevance:
    def relevance(signals: Sequence[Tensor], output: Tensor, given: Tensor) -> Sequence[Tensor]:
        scores = signals[0].masked_fill(signals[0].isneginf(), 0)  # of masks
        return [scores * (given - output * given.sum(dim, keepdim=True))]

    return relevance


def _with_fixed_scale(name: str, call: _Call) -> Callable[[Tensor], Tensor]:
    """A normalisation as the affine function that it is while its deviation is kept."""
    shape, weight, bias = (
        call.argument(i, n) for i, n in ((1, "normalized_shape"), (2, "weight"), (3, "bias"))
    )
    x = call.signals[0].detach()
    over, is_centred = tuple(range(-len(shape), 0)), name == "layer_norm"

    def centred(values: Tensor) -> Tensor:
        return values - values.mean(over, keepdim=True) if is_centred else values

    scale = _deviation(centred(x), over, call.argument(3 + is_centred, "eps"))
    shift = bias if is_centred else None

    def function(values: Tensor) -> Tensor:
        scaled = centred(values) * scale if weight is None else centred(values) * (scale * weight)
        return scaled if shift is None else scaled + shift

    return function


def _deviation(values: Tensor, over: tuple[int, ...], eps: float | None) -> Tensor:
    """One over the root of the mean square."""
    eps = torch.finfo(values.dtype).eps if eps is None else eps
    return (values.square().mean(over, keepdim=True) + eps).rsqrt()


def _carries(part: Any) -> bool:
    return isinstance(part, Tensor) and part.requires_grad


def _tensors(parts: Any) -> Iterator[Tensor]:
    if isinstance(parts, Tensor):
        yield parts
    elif isinstance(parts, (tuple, list)):
        for part in parts:
            yield from _tensors(part)
    elif isinstance(parts, dict):
        yield from _tensors(tuple(parts.values()))
