"""Networks in evaluation mode without touching the mode that their owner left them in.

Setting the modes of a network that others use, and setting them back, is seen by every thread. A *replica* is another
set of module objects around the same weights and buffers, with modes and hooks of its own.
"""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import nn

__all__ = ["in_evaluation", "replica", "unwrapped"]

_M = TypeVar("_M", bound=nn.Module)
_TABLES = ("_parameters", "_buffers")


def in_evaluation(module: _M) -> _M:
    """The module itself, if all of it is in evaluation mode, else a replica that is."""
    return replica(module) if any(part.training for part in module.modules()) else module


def replica(module: _M) -> _M:
    """Copy the structure of a module, in evaluation mode: weights, buffers and all other attributes are shared.

    Hooks come along; those registered or removed later do so for one of the two only. Buffers that are set (not
    changed in place) during a forward pass are set for the replica alone. Nothing is pickled, so that modules which
    hold locks or open files have replicas, too. TorchScript modules are copied whole.
    """
    twins: dict[int, nn.Module] = {}
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            twins[id(part)] = copy.deepcopy(part).eval()
        else:
            twins[id(part)] = object.__new__(type(part))
    for part in module.modules():
        twin = twins[id(part)]
        if not isinstance(twin, torch.jit.ScriptModule):
            twin.__dict__.update({name: _own(name, value, twins) for name, value in part.__dict__.items()})
            # an eager pass of what `module.compile()` compiled, which is bound to the other module
            twin.__dict__.update(training=False, _compiled_call_impl=None)
    return cast(_M, twins[id(module)])


def _own(name: str, value: Any, twins: dict[int, nn.Module]) -> Any:
    """An attribute for a replica: what refers to modules refers to their twins, tables are its own."""
    if name in _TABLES or name.endswith("_hooks"):
        return copy.copy(value)
    if name == "_modules":
        return {key: part if part is None else twins[id(part)] for key, part in value.items()}
    if isinstance(value, nn.Module):
        return twins.get(id(value), value)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, twins.get(id(value.__self__), value.__self__))
    if type(value) in (dict, OrderedDict):
        table = {key: _own("", item, twins) for key, item in value.items()}
        return value if all(table[key] is value[key] for key in value) else type(value)(table)
    if type(value) in (list, tuple):
        items = [_own("", item, twins) for item in value]
        return value if all(map(operator.is_, items, value)) else type(value)(items)
    return value


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that change only how it is computed: `torch.compile` and data parallelism."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner
