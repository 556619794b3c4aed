"""Networks in evaluation mode without touching the mode that their owner left them in.

Setting the modes of a network that others use, and setting them back, is seen by every thread. A *replica* is another
set of module objects around the same weights and buffers, with modes and hooks of its own.
"""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cache
from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

__all__ = ["in_evaluation", "parts_of", "replica", "state_of", "unwrapped"]

_M = TypeVar("_M", bound=nn.Module)
_TABLES = ("_parameters", "_buffers")
_TABLE_TYPES = frozenset((dict, OrderedDict))
_PLAIN = frozenset((int, float, str, bool, type(None), torch.dtype, torch.Size, torch.device))


def in_evaluation(module: _M) -> _M:
    """The module itself, if all of it is in evaluation mode, else a replica that is."""
    return replica(module) if any(part.training for part in parts_of(module)) else module


def replica(module: _M, **children: nn.Module) -> _M:
    """Copy the structure of a module, in evaluation mode: weights, buffers and all other attributes are shared.

    Children that are named have others put in their place, as they are, and are not copied.

    Hooks come along; those registered or removed later do so for one of the two only. Buffers that are set (not
    changed in place) during a forward pass are set for the replica alone. Nothing is pickled, so that modules which
    hold locks or open files have replicas, too. TorchScript modules are copied whole.
    """
    replaced = {module.get_submodule(name): child for name, child in children.items()}
    twins = {id(part): child for part, child in replaced.items()}
    parts = [part for _, part in module.named_modules(set(replaced))]
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
    kind = type(value)
    if kind in _PLAIN:
        return value
    if name in _TABLES or name.endswith("_hooks"):
        return value.copy() if kind in _TABLE_TYPES else copy.copy(value)
    if name == "_modules":
        return {key: part if part is None else twins[id(part)] for key, part in value.items()}
    if isinstance(value, nn.Module):
        return twins.get(id(value), value)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, twins.get(id(value.__self__), value.__self__))
    if kind in _TABLE_TYPES:
        table = {key: _own("", item, twins) for key, item in value.items()}
        return value if all(table[key] is value[key] for key in value) else kind(table)
    if kind in (list, tuple):
        items = [_own("", item, twins) for item in value]
        return value if all(map(operator.is_, items, value)) else kind(items)
    return value


def state_of(module: nn.Module) -> tuple[Any, ...]:
    """What a replica that was made now would depend on; equal as long as an older one would be the same.

    Weights that are changed past torch's counting (through `.data`) are noticed by a checksum. What lies deeper in a
    module's attributes than lists and dictionaries is taken for the same if it is the same object.
    """
    parts = parts_of(module)
    tensors = {
        id(values): values
        for part in parts
        for table in (part._parameters, part._buffers)
        for values in table.values()
        if values is not None
    }
    noted = tuple([(type(part), tuple(part.__dict__), _noted(part.__dict__.values())) for part in parts])
    return noted, _checksums(list(tensors.values()))


def parts_of(module: nn.Module) -> list[nn.Module]:
    """A module and all below it, each once, in a tenth of the time of `modules()`."""
    found, waiting = {}, [module]
    while waiting:
        part = waiting.pop()
        if id(part) not in found:
            found[id(part)] = part
            waiting += [child for child in part._modules.values() if child is not None]
    return list(found.values())


def _noted(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(
        [
            value if (kind := type(value)) in _PLAIN
            else None if kind in _TABLE_TYPES and not value
            else _deeper(value)
            for value in values
        ]
    )  # fmt: skip


def _deeper(value: Any) -> Any:
    """By number, not by reference: a state keeps nothing of a module alive."""
    if isinstance(value, (list, tuple)):
        return type(value), _noted(value)
    if isinstance(value, dict):
        return tuple(value), _noted(value.values())
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version, value.data_ptr()
    return id(value)


_ROW, _FEW = 1 << 16, 1 << 10
"""Values that are weighed together; and fewer, of which tensors are put into one."""


@torch.no_grad()
def _checksums(tensors: Sequence[Tensor]) -> tuple[float, ...]:
    """Sums of all values in which each has a weight of its own: one of all small tensors, and one of each large."""
    small: dict[Any, list[Tensor]] = {}
    sums = []
    for values in tensors:
        if values.numel() >= _FEW and values.is_floating_point():
            sums.append(_weighed(values.reshape(-1)))
        else:
            small.setdefault((values.dtype, values.device), []).append(values.reshape(-1))
    return *sums, *(_weighed(torch.cat(flats).double()) for flats in small.values())


def _weighed(flat: Tensor) -> float:
    count, weights = flat.numel(), _weights(flat.dtype, flat.device)
    if count <= _ROW:
        return float(flat @ weights[:count])
    rows = flat[: count - count % _ROW].view(-1, _ROW) @ weights
    return float(rows @ weights[: rows.numel()]) + 3 * _weighed(flat[count - count % _ROW :])


@cache
def _weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.linspace(1, 2, _ROW, dtype=dtype, device=device)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that change only how it is computed: `torch.compile` and data parallelism."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner
