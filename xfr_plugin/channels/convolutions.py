"""Convolutions that pass gradients on to their images alone, of many channels in one pass and of every order.

Under `torch.vmap` the backward pass of torch's own convolution is one pass for all channels, but writes a stand-in
for its input first, as large as that is for all of them together. That takes up to a seventh of the time. Its second
derivative works out the gradient of the weights, which nobody asks for, group by group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["BatchedConvolutions", "batched_convolutions"]

_Steps: TypeAlias = int | Sequence[int]


class BatchedConvolutions(TorchFunctionMode):
    """Let two-dimensional convolutions pass gradients on to their images alone, in a `with` block.

    Values and gradients are those of torch up to rounding. Convolutions whose weights are computed, or that pad by
    name, are left alone.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what stands for it."""
        return (_convolved if func is torch.conv2d else func)(*args, **(kwargs or {}))


@contextmanager
def batched_convolutions(network: nn.Module) -> Iterator[None]:
    """As `BatchedConvolutions`, for layers of a network, also where a backward pass runs them: no mode gets there.

    Layers that compute a convolution in their own way (other padding modes, overridden methods) are left alone.
    """
    plain = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and _is_plain(layer)]
    for layer in plain:
        layer.__dict__["_conv_forward"] = partial(_of_layer, layer)
    try:
        yield
    finally:
        for layer in plain:
            del layer.__dict__["_conv_forward"]


def _is_plain(layer: nn.Conv2d) -> bool:
    is_own = type(layer)._conv_forward is nn.Conv2d._conv_forward and "_conv_forward" not in layer.__dict__
    return is_own and layer.padding_mode == "zeros"


def _of_layer(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _convolved(images, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _convolved(
    input: Tensor,  # torch's name, by which it may be given
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Steps = 1,
    padding: _Steps | str = 0,
    dilation: _Steps = 1,
    groups: int = 1,
) -> Tensor:
    computed = any(values is not None and values.grad_fn is not None for values in (weight, bias))
    if computed or isinstance(padding, str) or input.ndim != 4 or not input.is_floating_point():
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    steps = [[each, each] if isinstance(each, int) else list(each) for each in (stride, padding, dilation)]
    result: Tensor = _Convolution.apply(input, weight, bias, steps, groups)
    return result


class _Linear(Function):
    """A linear function of images, which keeps its weights only; another is its derivative."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        images, weight, _, *ctx.settings = inputs
        ctx.save_for_backward(weight)
        ctx.size = images.shape[2:]

    @classmethod
    def of(cls, gradient: Tensor, *settings: Any) -> tuple[Tensor | None, ...]:
        """Its value and no other gradients; recorded only if that is asked for, as `torch.vmap` takes no `apply`."""
        value: Tensor = (cls.apply if gradient.requires_grad else cls.forward)(gradient, *settings)
        return value, None, None, None, None


class _Convolution(_Linear):
    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, bias: Tensor | None, steps: list[list[int]], groups: int
    ) -> Tensor:
        stride, padding, dilation = steps
        return functional.conv2d(images, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        weight = weight.to(gradient.dtype)  # of a forward pass in less precision
        return _Transposed.of(gradient, weight, ctx.size, *ctx.settings)


class _Transposed(_Linear):
    """The transpose of a convolution, to images of `size`."""

    @staticmethod
    def forward(
        gradient: Tensor, weight: Tensor, size: Sequence[int], steps: list[list[int]], groups: int
    ) -> Tensor:
        stride, padding, dilation = steps
        rest = [  # what the stride leaves over
            (size[axis] + 2 * padding[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1)
            % stride[axis]
            for axis in (0, 1)
        ]
        return functional.conv_transpose2d(gradient, weight, None, stride, padding, rest, groups, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Convolution.of(gradient, *ctx.saved_tensors, None, *ctx.settings)
