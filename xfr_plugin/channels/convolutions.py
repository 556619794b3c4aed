"""Convolutions whose input gradients of many channels are computed in one pass.

Under `torch.vmap` the backward pass of torch's own convolution is one pass for all channels, but writes a stand-in
for its input first, as large as that is for all of them together. That takes up to a seventh of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["BatchedConvolutions"]

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


class _Convolution(Function):
    """A convolution that keeps its weights only."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, steps: list[list[int]], groups: int
    ) -> Tensor:
        stride, padding, dilation = steps
        rest = [  # what the stride leaves over
            (images.shape[2 + axis] + 2 * padding[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1)
            % stride[axis]
            for axis in (0, 1)
        ]
        ctx.save_for_backward(weight)
        ctx.settings = stride, padding, rest, groups, dilation
        return functional.conv2d(images, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        weight = weight.to(gradient.dtype)  # of a forward pass in less precision
        back = functional.conv_transpose2d(gradient, weight, None, *ctx.settings)
        return back, None, None, None, None
