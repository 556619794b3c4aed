"""Convolutions whose derivatives of every order are plain convolutions.

Relevance is propagated many times through the same layers here, by differentiating a propagation once more
(`lrp.propagation`). PyTorch's second derivative of a convolution also works out the gradient of the weights, which
nobody asks for, and loops over the groups of a grouped convolution to do so. The pair of functions below, each the
other's transpose, leaves that out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

__all__ = ["transposable_convolutions"]


@contextmanager
def transposable_convolutions(model: nn.Module) -> Iterator[None]:
    """Let the two-dimensional convolutions of a model be differentiated repeatedly at the cost of a convolution.

    Values are the same up to rounding. Inside the block no gradient reaches the convolutions' weights. Modules
    that compute a convolution in their own way (other padding modes, overridden methods) are left alone.
    """
    patched = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _is_plain(module)]
    for module in patched:
        module.__dict__["_conv_forward"] = partial(_convolve, module)
    try:
        yield
    finally:
        for module in patched:
            del module.__dict__["_conv_forward"]


def _is_plain(module: nn.Conv2d) -> bool:
    return (
        type(module)._conv_forward is nn.Conv2d._conv_forward
        and "_conv_forward" not in module.__dict__
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _convolve(module: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    settings = (module.stride, module.padding, module.dilation, module.groups)
    product: Tensor = _Convolution.apply(images, weight, settings)
    return product if bias is None else product + bias.view(-1, 1, 1)


class _Convolution(Function):
    """Convolution as a linear function of the image; its derivative is `_Transposed`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, settings: Any) -> Tensor:
        return functional.conv2d(images, weight, None, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        images, weight, settings = inputs
        ctx.save_for_backward(weight)
        ctx.size, ctx.settings = images.shape[-2:], settings

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _Transposed.apply(grad, weight, ctx.size, ctx.settings), None, None


class _Transposed(Function):
    """The transpose of `_Convolution`, to images of `size`; its derivative is `_Convolution`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, weight: Tensor, size: tuple[int, int], settings: Any) -> Tensor:
        stride, padding, dilation, groups = settings
        reached = [
            (grad.shape[axis - 2] - 1) * stride[axis]
            - 2 * padding[axis]
            + dilation[axis] * (weight.shape[axis - 2] - 1)
            + 1
            for axis in (0, 1)
        ]
        rest = [size[axis] - reached[axis] for axis in (0, 1)]  # what the stride left over
        return functional.conv_transpose2d(grad, weight, None, stride, padding, rest, groups, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, weight, _, settings = inputs
        ctx.save_for_backward(weight)
        ctx.settings = settings

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return _Convolution.apply(grad, weight, ctx.settings), None, None, None
