"""Folding BatchNorm into convolutions: the same function and the same input gradients, in less time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from xfr_plugin.base.tracing import PrivateTracer
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["fold_batchnorm", "folded_recognizer", "safely_folded"]


def fold_batchnorm(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode, with each BatchNorm that follows a convolution folded into it.

    The copy computes the same function up to rounding, and input gradients of it take about half the time on a CPU.
    Networks that cannot be traced (control flow that depends on data), that carry hooks, or that train are
    returned as they are.
    """
    if network.training or any(_has_hooks(module) for module in network.modules()):
        return network
    try:
        tracer = PrivateTracer()
        graph = tracer.trace(network)
        folded: nn.Module = fuse(fx.GraphModule(tracer.root, graph), no_trace=True)
    except Exception:  # tracing foreign code can fail in any way, and folding is only a matter of speed
        return network
    laid_out: nn.Module = folded._apply(_colours_innermost)
    return laid_out


def _colours_innermost(values: Tensor) -> Tensor:
    """Maps in the order in memory that convolutions take less time for; other tensors have no such order."""
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values


def folded_recognizer(recognizer: Recognizer) -> Recognizer:
    """Copy a recognizer with its network folded, see `fold_batchnorm`."""
    return recognizer.with_network(fold_batchnorm(recognizer.network))


@torch.no_grad()
def safely_folded(
    function: Callable[..., Tensor], images: Tensor, arguments: Sequence[Any] = ()
) -> Callable[..., Tensor]:
    """A function of images with BatchNorm folded in, if it is a module and that computes the same for these."""
    if not isinstance(function, nn.Module):
        return function
    folded = folded_recognizer(function) if isinstance(function, Recognizer) else fold_batchnorm(function)
    if folded is function:
        return function
    expected = function(images, *arguments)
    try:
        found = folded(images, *arguments)
    except RuntimeError:  # tracing can bake a shape in
        return function
    # tracing can also take a wrong branch, where code asks what a tensor is
    return folded if _close(found, expected) else function


def _close(found: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max())
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)


def _has_hooks(module: nn.Module) -> bool:
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks)
