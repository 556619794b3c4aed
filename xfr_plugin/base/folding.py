"""Folding BatchNorm into convolutions: the same function and the same input gradients, in less time."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from xfr_plugin.base.tracing import PrivateTracer

__all__ = ["batchnorm_folded"]


def batchnorm_folded(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode, with each BatchNorm that follows a convolution folded into it.

    The copy computes the same function up to rounding. Weights that nothing was folded into are shared.

    Raises:
        Exception: whatever a network raises that cannot be traced: its control flow depends on data.
    """
    tracer = PrivateTracer()
    graph = tracer.trace(network)
    traced = fx.GraphModule(tracer.root, graph)  # around modules of a replica, which may be changed
    return _with_own_tensors(fuse(traced, inplace=True, no_trace=True))


def _with_own_tensors(network: nn.Module) -> nn.Module:
    """Let a network share no parameter objects with another, and lay them out as its convolutions are fastest."""
    for module in network.modules():
        for name, values in module._parameters.items():
            if values is not None:
                own = _colours_innermost(values.detach())
                module._parameters[name] = nn.Parameter(own, values.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _colours_innermost(buffer)
    return network.eval()  # the modules that tracing makes to hold others train


def _colours_innermost(values: Tensor) -> Tensor:
    """Maps in the order in memory that convolutions take less time for; other tensors have no such order."""
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values
