"""Folding BatchNorm into convolutions: the same function and the same input gradients, in less time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from xfr_plugin.base.tracing import PrivateTracer

__all__ = ["batchnorm_folded", "colours_innermost", "gives_the_same"]

_FOLLOWED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}


def batchnorm_folded(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode, with each BatchNorm that follows a convolution folded into it.

    The copy computes the same function up to rounding. Weights that nothing was folded into are shared. No gradient
    reaches its parameters, so that a forward pass keeps nothing for theirs.

    Raises:
        Exception: whatever a network raises that cannot be traced: its control flow depends on data.
    """
    tracer = PrivateTracer()
    graph = tracer.trace(network)
    root = tracer.root  # a replica, which may be changed
    assert isinstance(root, nn.Module)
    merged = set()
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        source = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1:
            layer, batchnorm = (root.get_submodule(str(each.target)) for each in (source, node))
            if calls[source.target] == 1 and _merge(layer, batchnorm):
                merged.add(source.target)
                node.replace_all_uses_with(source)
                graph.erase_node(node)
    network = _with_own_tensors(fx.GraphModule(root, graph))
    network.meta[_MERGED] = merged
    return network


_MERGED = "merged with a BatchNorm"


def gives_the_same(folded: nn.Module, name: str) -> bool:
    """Whether a layer is still called in what `batchnorm_folded` gave, and gives what it gave before."""
    assert isinstance(folded, fx.GraphModule)
    called = {node.target for node in folded.graph.nodes if node.op == "call_module"}
    return name in called - folded.meta[_MERGED]


def _merge(layer: Any, batchnorm: Any) -> bool:
    """Fold the BatchNorm that follows a layer into it; False if they are no such two."""
    if type(batchnorm) is not _FOLLOWED.get(type(layer)) or batchnorm.running_mean is None:
        return False
    if isinstance(layer, nn.Linear) and layer.out_features != batchnorm.num_features:
        return False  # whose rows are places, not channels
    fuse: Any = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    fixed = batchnorm.running_mean, batchnorm.running_var, batchnorm.eps, batchnorm.weight, batchnorm.bias
    layer.weight, layer.bias = fuse(layer.weight, layer.bias, *fixed)
    return True


def _with_own_tensors(network: fx.GraphModule) -> fx.GraphModule:
    """Let a network share no parameter objects with another, and lay them out as its convolutions are fastest."""
    for module in network.modules():
        for name, values in module._parameters.items():
            if values is not None:
                own = colours_innermost(values.detach())
                module._parameters[name] = nn.Parameter(own, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = colours_innermost(buffer)
    return network.eval()  # the modules that tracing makes to hold others train


def colours_innermost(values: Tensor) -> Tensor:
    """Maps in the order in memory that convolutions take less time for; other tensors have no such order."""
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values
