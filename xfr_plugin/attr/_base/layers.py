"""Which layer of a network still knows where things are, and what it computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from xfr_plugin.errors import InputError, UnknownNameError

__all__ = ["Tapped", "find_layer", "last_spatial_layer"]


def find_layer(
    function: Callable[..., Tensor], name: str | None, images: Tensor, *arguments: Any
) -> nn.Module:
    """The layer of a dotted name, or without a name the last spatial one.

    Args:
        function: the network; may be a plain function around it, if no name is given.
        name: as `named_modules` of the function gives it, e.g. `network.conv2`.
        images: M×C×H×W, run once to see the layers at work.
        *arguments: further arguments of the function.

    Raises:
        InputError: a name but no module, a layer that does not give M×K×h×w, or no layer that does.
        UnknownNameError: no layer of this name.
    """
    if name is None:
        return last_spatial_layer(function, images, *arguments)
    if not isinstance(function, nn.Module):
        raise InputError("layer=… names a layer of a module, but the forward function is none: leave it out")
    named = dict(function.named_modules())
    if name not in named:
        raise UnknownNameError.of("layer", name, named)
    with _watched(function) as seen, torch.no_grad():
        function(images, *arguments)
    if not any(module is named[name] and _is_spatial(output) for module, output in seen):
        raise InputError(
            f"layer {name} has no output M×K×h×w with more than one place: choose an earlier one"
        )
    layer: nn.Module = named[name]
    return layer


def last_spatial_layer(function: Callable[..., Tensor], images: Tensor, *arguments: Any) -> nn.Module:
    """The last module without children, in the order of calls, whose output is M×K×h×w with h·w > 1.

    Raises:
        InputError: there is none, as in a network without convolutions or a scripted one.
    """
    with _watched(function) as seen, torch.no_grad():
        function(images, *arguments)
    for module, output in reversed(seen):
        if _is_spatial(output) and next(module.children(), None) is None:
            return module
    raise InputError(
        "found no layer with an output M×K×h×w: Grad-CAM needs a convolutional network of ordinary modules"
    )


class Tapped(nn.Module):
    """A function, and a `layer` of this object's own that stands for one which the function uses.

    Whoever hooks `layer` sees and changes what passes there in this thread, and hooks no layer that others use.

    Args:
        function: whatever uses the layer.
        used: the layer.
    """

    def __init__(self, function: Callable[..., Tensor], used: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self._function, self._used = function, [used]  # in a list: it is no part of this module

    def forward(self, *arguments: Any) -> Tensor:
        """Call the function."""
        thread = threading.get_ident()

        def tap(module: nn.Module, inputs: object, output: object) -> object:
            return self.layer(output) if threading.get_ident() == thread else None

        handle = self._used[0].register_forward_hook(tap)
        try:
            return self._function(*arguments)
        finally:
            handle.remove()


def _is_spatial(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1


@contextmanager
def _watched(function: Callable[..., Tensor]) -> Iterator[list[tuple[nn.Module, object]]]:
    """Modules that run in this thread, with their outputs, in order; also those inside plain functions."""
    seen: list[tuple[nn.Module, object]] = []
    thread = threading.get_ident()

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == thread:
            seen.append((module, output))

    parts = list(function.modules()) if isinstance(function, nn.Module) else []
    is_plain = len(parts) < 2  # a function, or a head on one, whose modules only a hook of all modules sees
    hooking = [register_module_forward_hook] if is_plain else [part.register_forward_hook for part in parts]
    handles = [hook(note) for hook in hooking]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
