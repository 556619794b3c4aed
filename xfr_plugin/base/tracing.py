"""Tracing with `torch.fx` of which other threads notice nothing.

`torch.fx.Tracer.trace` replaces calls and attributes of *all* modules of the process while it runs: a forward pass of
another thread in that time fails or gives a wrong result, and two tracings that overlap leave the replacements in
place. Here a replica is traced whose modules have classes of their own, and nothing else is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from xfr_plugin.base.replicas import replica

__all__ = ["PrivateTracer"]


_MEMORY = ("numpy", "data_ptr", "tolist", "item", "__array__", "__array_interface__", "__dlpack__")


class _TensorsProxy(fx.Proxy):
    """Stands for a tensor, and has no memory that code outside of torch could read, and crash."""

    def __getattr__(self, name: str) -> fx.proxy.Attribute:
        if name in _MEMORY:
            raise TypeError(f"{name}: what is traced has no values yet")
        return super().__getattr__(name)


class PrivateTracer(fx.Tracer):
    """A tracer for modules, not for plain functions; one for each graph. `root` is the replica that was traced.

    The replica shares its weights with the module, and also holds the constants that the forward function made.
    Functions registered with `torch.fx.wrap`, and those of `math`, are not recorded: they see the proxies.
    """

    def trace(
        self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None
    ) -> fx.Graph:
        """Record the forward function of a module.

        Raises:
            Exception: whatever the function raises; those whose flow depends on values cannot be recorded.
        """
        if not isinstance(root, nn.Module):
            raise TypeError(f"a module is traced, not a {type(root).__name__}")
        self.root = replica(root)
        self.graph = fx.Graph(tracer_cls=type(self))
        named = dict(self.root.named_modules())
        self.root_module_name = type(root).__name__
        self.submodule_paths = {part: name for name, part in named.items()}
        self.tensor_attrs = {
            value: f"{name}.{key}".lstrip(".")
            for name, part in named.items()
            for key, value in part.__dict__.items()
            if isinstance(value, (Tensor, torch.ScriptObject))
        }
        classes = {part: type(part) for part in named.values()}
        try:
            self._watch(list(classes))
            function, arguments = self.create_args_for_root(type(self.root).forward, True, concrete_args)
            self.create_node("output", "output", (self.create_arg(function(*arguments)),), {})
        finally:
            self.submodule_paths = None
            for part, cls in classes.items():
                part.__class__ = cls
        return self.graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for a value while the forward function runs."""
        return _TensorsProxy(node, self)

    def _watch(self, parts: list[nn.Module]) -> None:
        """Give modules classes that tell this tracer of their calls and of their attributes."""
        proxies: dict[str, fx.Proxy] = {}
        watched: dict[type[nn.Module], type[nn.Module]] = {}
        for part in parts:
            if not isinstance(part, torch.jit.ScriptModule):
                cls = type(part)
                if cls not in watched:
                    watched[cls] = self._watched(cls, proxies)
                part.__class__ = watched[cls]

    def _watched(self, cls: type[nn.Module], proxies: dict[str, fx.Proxy]) -> type[nn.Module]:
        def call(module: nn.Module, *arguments: Any, **options: Any) -> Any:
            return self.call_module(module, partial(cls.__call__, module), arguments, options)

        def attribute(module: nn.Module, name: str) -> Any:
            return self.getattr(name, cls.__getattr__(module, name), proxies)

        members = {"__module__": cls.__module__, "__call__": call, "__getattr__": attribute}
        make: Callable[..., type[nn.Module]] = type(cls)
        return make(cls.__name__, (cls,), members)
