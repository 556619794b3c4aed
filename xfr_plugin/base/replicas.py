"""Networks in evaluation mode without touching the mode that their owner left them in.

Setting the modes of a network that others use, and setting them back, is seen by every thread. A *replica* is another
set of module objects around the same weights and buffers, with modes and hooks of its own.
"""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from collections.abc import Iterable
from types import MethodType
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["in_evaluation", "replica", "state_of", "unwrapped"]

_M = TypeVar("_M", bound=nn.Module)
_TABLES = ("_parameters", "_buffers")


def in_evaluation(module: _M) -> _M:
    """The module itself, if all of it is in evaluation mode, else a replica that is."""
    return replica(module) if any(part.training for part in module.modules()) else module


def replica(module: _M, shared: Iterable[nn.Module] = ()) -> _M:
    """Copy the structure of a module, in evaluation mode: weights, buffers and all other attributes are shared.

    Parts that are `shared` are those of the module themselves, with all that is below them.

    Hooks come along; those registered or removed later do so for one of the two only. Buffers that are set (not
    changed in place) during a forward pass are set for the replica alone. Nothing is pickled, so that modules which
    hold locks or open files have replicas, too. TorchScript modules are copied whole.
    """
    twins: dict[int, nn.Module] = {}
    parts = [part for _, part in module.named_modules(memo=set(shared))]
    for part in parts:
        if isinstance(part, torch.jit.ScriptModule):
            twins[id(part)] = copy.deepcopy(part).eval()
        else:
            twins[id(part)] = object.__new__(type(part))
    for part in parts:
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
        return {key: twins.get(id(part), part) for key, part in value.items()}
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


def state_of(module: nn.Module) -> tuple[Any, ...]:
    """What a replica that was made now would depend on; equal as long as an older one would be the same.

    Weights that are changed past torch's counting (through `.data`) are noticed by a checksum. What lies deeper in a
    module's attributes than lists and dictionaries is taken for the same if it is the same object.
    """
    tensors = [*module.parameters(), *module.buffers()]
    parts = tuple((type(part), _noted(part.__dict__)) for part in module.modules())
    return parts, tuple(map(_checksum, tensors))


_PLAIN = {int, float, str, bool, type(None), torch.dtype, torch.Size, torch.device}


def _noted(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version, value.data_ptr()
    if isinstance(value, dict):
        if not value:
            return ()
        return tuple([(key, item if type(item) in _PLAIN else _noted(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(_noted, value))
    return id(value)


@torch.no_grad()
def _checksum(values: Tensor) -> float:
    """A sum of all values in which each of a row of so many has a weight of its own, and each row one."""
    if values.device.type == "cpu" and values.dtype in _RAMPS:
        return _sum_of(values.detach().numpy().ravel(order="K"), _RAMPS[values.dtype])
    flat = values.detach().reshape(-1)
    if not flat.is_floating_point():
        flat = flat.double()
    weights = torch.linspace(1, 2, len(flat), dtype=flat.dtype, device=flat.device)
    return float(flat @ weights)


def _sum_of(flat: NDArray[Any], ramp: NDArray[Any]) -> float:
    """The checksum without a tensor of weights for every length, which takes most of the time."""
    whole = len(flat) // len(ramp) * len(ramp)
    rest = flat[whole:]
    sums = flat[:whole].reshape(-1, len(ramp)) @ ramp
    return float(rest @ ramp[: len(rest)]) + float(sums @ np.linspace(1, 2, len(sums), dtype=sums.dtype))


_RAMPS = {
    dtype: np.linspace(1, 2, 1 << 14, dtype=kind)
    for dtype, kind in ((torch.float32, "f4"), (torch.float64, "f8"))
}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that change only how it is computed: `torch.compile` and data parallelism."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner
