"""BatchNorm folded into the linear layers beside it, exactly, also before a zero-padded convolution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from xfr_plugin.base.folding import colours_innermost
from xfr_plugin.errors import InputError
from xfr_plugin.lrp._changes import Changes
from xfr_plugin.lrp.tracing import called_module, calls, is_flatten, whole_graphs

__all__ = ["fold_batchnorms", "folded_away"]


def fold_batchnorms(root: nn.Module, changes: Changes) -> list[_BatchNorm]:
    """Fold each BatchNorm into the convolution or linear layer that feeds it, or else into the one that it feeds.

    What follows what is read from the forward functions, not from the order of definition. The folded BatchNorm
    becomes the identity. A convolution that pads with zeros does not see the shift t of a BatchNorm before it on the
    border. So its bias becomes a map, the response to a constant input t: the usual folded bias inside, and right at
    the border.

    Returns:
        Those that were folded. The others stay as they are.

    Raises:
        InputError: a BatchNorm without running statistics, which is not a fixed function.
    """
    folded: list[_BatchNorm] = []
    parts = [(part, graph, calls(graph)) for part, graph in whole_graphs(root)]
    # what follows a layer is folded before what precedes it: the latter's bias is a function of the folded weights
    for merge_of in (_into_producer, _into_consumer):
        for part, graph, counts in parts:
            for node in graph.nodes:
                batchnorm = called_module(part, node)
                if not isinstance(batchnorm, _BatchNorm) or counts[str(node.target)] > 1:
                    continue
                merge = None if batchnorm in folded else merge_of(part, node, counts)
                if merge is not None:
                    merge(batchnorm, changes)
                    changes.set_attribute(batchnorm, "forward", folded_away)
                    folded.append(batchnorm)
    return folded


Merge = Callable[[_BatchNorm, Changes], None]


def folded_away(x: Tensor) -> Tensor:
    """Forward function of a BatchNorm that was folded."""
    return x


def _into_producer(part: nn.Module, node: fx.Node, counts: dict[str, int]) -> Merge | None:
    source = node.args[0]
    while isinstance(source, fx.Node) and len(source.users) == 1:
        module = called_module(part, source)
        if isinstance(module, (_ConvNd, nn.Linear)) and counts[str(source.target)] == 1:
            return lambda batchnorm, changes: _merge_after(module, batchnorm, changes)
        if not isinstance(module, (nn.Dropout, nn.Dropout2d, nn.Identity)):
            return None
        source = source.args[0]
    return None


def _into_consumer(part: nn.Module, node: fx.Node, counts: dict[str, int]) -> Merge | None:
    source, flattened = node, False
    while len(source.users) == 1:
        source = next(iter(source.users))
        module = called_module(part, source)
        if isinstance(module, nn.Linear) and counts[str(source.target)] == 1:
            return lambda batchnorm, changes: _merge_before_linear(module, batchnorm, changes)
        if isinstance(module, _ConvNd) and not flattened and counts[str(source.target)] == 1:
            if isinstance(module, _ConvTransposeNd):
                return None
            return lambda batchnorm, changes: _merge_before_conv(module, batchnorm, changes)
        if is_flatten(source) or (isinstance(module, nn.Flatten) and module.start_dim == 1):
            flattened = True
        elif not isinstance(module, (nn.Dropout, nn.Dropout2d, nn.Identity)):
            return None
    return None


def scale_and_shift(batchnorm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The fixed function of a BatchNorm in evaluation: x ↦ s·x + t, channel by channel.

    Raises:
        InputError: it keeps no running statistics.
    """
    if batchnorm.running_mean is None or batchnorm.running_var is None:
        raise InputError(
            "a BatchNorm without running statistics is no fixed function: relevance is not defined"
        )
    scale = (batchnorm.running_var + batchnorm.eps).rsqrt()
    if batchnorm.weight is not None:
        scale = scale * batchnorm.weight.detach()
    shift = -batchnorm.running_mean * scale
    return scale, shift if batchnorm.bias is None else shift + batchnorm.bias.detach()


def _merge_after(linear: _ConvNd | nn.Linear, batchnorm: _BatchNorm, changes: Changes) -> None:
    scale, shift = scale_and_shift(batchnorm)
    weight = linear.weight.detach()
    if isinstance(linear, _ConvTransposeNd):
        rows = scale.view(linear.groups, -1).repeat_interleave(linear.in_channels // linear.groups, 0)
        scaled = weight * _along(rows, weight.ndim, lead=2)
    else:
        scaled = weight * _along(scale, weight.ndim)
    if linear.bias is not None:
        bias = linear.bias.detach()
        shift = (
            shift + bias * scale
            if bias.ndim == 1
            else _along(shift, bias.ndim) + bias * _along(scale, bias.ndim)
        )
    _set(linear, scaled, shift, changes)


def _along(values: Tensor, ndim: int, lead: int = 1) -> Tensor:
    return values.reshape(*values.shape[:lead], *(1,) * (ndim - lead))


def _merge_before_linear(linear: nn.Linear, batchnorm: _BatchNorm, changes: Changes) -> None:
    scale, shift = scale_and_shift(batchnorm)
    repeats = linear.in_features // len(scale)
    weight = linear.weight.detach()
    bias = weight @ shift.repeat_interleave(repeats)
    if linear.bias is not None:
        bias = bias + linear.bias.detach()
    _set(linear, weight * scale.repeat_interleave(repeats), bias, changes)


def _merge_before_conv(conv: _ConvNd, batchnorm: _BatchNorm, changes: Changes) -> None:
    scale, shift = scale_and_shift(batchnorm)
    weight = conv.weight.detach()
    before = None if conv.bias is None else conv.bias.detach()
    grouped = scale.view(conv.groups, 1, -1).expand(-1, conv.out_channels // conv.groups, -1).flatten(0, 1)
    scaled = weight * _along(grouped, weight.ndim, lead=2)
    if not _pads_with_zeros(conv):
        inner = weight.flatten(2).sum(2) * shift.view(conv.groups, 1, -1).expand(
            -1, conv.out_channels // conv.groups, -1
        ).flatten(0, 1)
        bias = inner.sum(1) if before is None else inner.sum(1) + before
        _set(conv, scaled, bias, changes)
        return
    _set(
        conv,
        scaled,
        torch.zeros_like(weight[:, 0, ...].flatten(1)[:, 0]) if before is None else before,
        changes,
    )
    changes.set_attribute(conv, "forward", _BorderBias(conv, weight, shift, before))


def _pads_with_zeros(conv: _ConvNd) -> bool:
    padding = conv.padding
    is_none = padding == "valid" if isinstance(padding, str) else not any(padding)
    return conv.padding_mode == "zeros" and not is_none


class _BorderBias:
    """Forward function of a convolution whose bias is a map, made for the size of its input when first seen."""

    def __init__(self, conv: _ConvNd, weight: Tensor, shift: Tensor, bias: Tensor | None) -> None:
        self.conv, self.weight, self.shift, self.bias = conv, weight, shift, bias
        self.size: tuple[int, ...] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.size != tuple(x.shape[2:]):
            self._fit(x)
        out: Tensor = self.conv._conv_forward(x, self.conv.weight, None)
        bias = self.conv.bias
        return out if bias is None else out + bias

    @torch.no_grad()
    def _fit(self, x: Tensor) -> None:
        constant = _along(self.shift, x.ndim - 1).expand(1, -1, *x.shape[2:])
        response: Tensor = self.conv._conv_forward(constant, self.weight, self.bias)
        self.conv.bias = nn.Parameter(response[0], requires_grad=False)
        self.size = tuple(x.shape[2:])


def _set(linear: _ConvNd | nn.Linear, weight: Tensor, bias: Tensor, changes: Changes) -> None:
    changes.keep_parameters(linear)
    linear.weight = nn.Parameter(colours_innermost(weight), requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False)
