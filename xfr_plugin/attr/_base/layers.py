"""Which layer of a network still knows where things are, and what it computes.

Convolutions give maps M×K×h×w. Transformers give tokens: M×T×K, with some in front that have no place (of the class,
registers), or M×h×w×K. The grid of tokens is that of the patches which a convolution cut, or that one merged by two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from xfr_plugin.errors import InputError, UnknownNameError

__all__ = ["Tapped", "Tokens", "find_layer", "last_spatial_layer"]

_MOST_EXTRA = 16
"""Tokens without a place, at most."""


@dataclass(frozen=True)
class Tokens:
    """How the tokens that a layer gives lie on the image.

    Attributes:
        grid: rows and columns.
        extra: tokens in front that have no place.
        flat: M×T×K, and not M×h×w×K.
    """

    grid: tuple[int, int]
    extra: int
    flat: bool

    def to_maps(self, output: Tensor) -> Tensor:
        """M×K×h×w of the tokens that have a place."""
        placed = output[:, self.extra :].unflatten(1, self.grid) if self.flat else output
        return placed.movedim(-1, 1)

    def from_maps(self, maps: Tensor, output: Tensor) -> Tensor:
        """The tokens of the layer with these maps in their places."""
        placed = maps.movedim(1, -1)
        return torch.cat((output[:, : self.extra], placed.flatten(1, 2)), dim=1) if self.flat else placed


def find_layer(
    function: Callable[..., Tensor], name: str | None, images: Tensor, *arguments: Any
) -> tuple[nn.Module, Tokens | None]:
    """The layer of a dotted name, or without a name the last spatial one; and how its tokens lie, if it gives such.

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
    layer: nn.Module = named[name]
    outputs = [output for module, output in seen if module is layer]
    grids = _grids(seen)
    tokens = next((found for output in outputs if (found := _tokens(output, grids)) is not None), None)
    if tokens is not None:
        return layer, tokens
    if not any(_is_spatial(output) for output in outputs) or (grids and not _cuts_patches(layer)):
        raise InputError(
            f"layer {name} has no output M×K×h×w with more than one place, nor tokens with a place: choose an "
            "earlier one, or in a transformer a norm"
        )
    return layer, None


def last_spatial_layer(
    function: Callable[..., Tensor], images: Tensor, *arguments: Any
) -> tuple[nn.Module, Tokens | None]:
    """The last module without children, in the order of calls, whose output is M×K×h×w with h·w > 1.

    In a transformer it is the last norm whose tokens have a place and reach the output: where a class token is read,
    the one before the last attention, since after it the other tokens count for nothing.

    Raises:
        InputError: there is none, as in a network without convolutions or a scripted one.
    """
    with _watched(function) as seen, torch.no_grad():
        function(images, *arguments)
    grids = _grids(seen)
    if grids:
        return _last_norm_of_tokens(function, grids, images, *arguments)
    for module, output in reversed(seen):
        if _is_spatial(output) and next(module.children(), None) is None:
            return module, None
    raise InputError(
        "found no layer with an output M×K×h×w: Grad-CAM needs a convolutional network of ordinary modules"
    )


class Tapped(nn.Module):
    """A function, and a `layer` of this object's own that stands for one which the function uses.

    Whoever hooks `layer` sees and changes what passes there in this thread, and hooks no layer that others use.

    Args:
        function: whatever uses the layer.
        used: the layer.
        tokens: how its tokens lie; `layer` then sees them as maps.
    """

    def __init__(
        self, function: Callable[..., Tensor], used: nn.Module, tokens: Tokens | None = None
    ) -> None:
        super().__init__()
        self.layer, self._tokens = nn.Identity(), tokens
        self._function, self._used = function, [used]  # in a list: it is no part of this module

    def forward(self, *arguments: Any) -> Tensor:
        """Call the function."""
        thread = threading.get_ident()

        def tap(module: nn.Module, inputs: object, output: object) -> object:
            if threading.get_ident() != thread:
                return None
            if self._tokens is None or not isinstance(output, Tensor):
                return self.layer(output)
            return self._tokens.from_maps(self.layer(self._tokens.to_maps(output)), output)

        handle = self._used[0].register_forward_hook(tap)
        try:
            return self._function(*arguments)
        finally:
            handle.remove()


def _is_spatial(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1


def _cuts_patches(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def _grids(seen: list[tuple[nn.Module, object]]) -> list[tuple[int, int]]:
    """Grids that tokens can lie on: of the last convolution before them, and merged by two.

    None without tokens, and none where convolutions follow, as in ConvNeXt: their maps will do.
    """
    grids: list[tuple[int, int]] = []
    has_tokens = False
    for module, output in seen:
        if _cuts_patches(module) and isinstance(output, Tensor) and output.ndim == 4:
            if has_tokens:
                return []
            grids = [(output.shape[2], output.shape[3])]
            while min(grids[-1]) > 1:
                grids.append(((grids[-1][0] + 1) // 2, (grids[-1][1] + 1) // 2))
        has_tokens = has_tokens or (_is_norm(module) and _tokens(output, grids) is not None)
    return grids if has_tokens else []


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def _tokens(output: object, grids: list[tuple[int, int]]) -> Tokens | None:
    """How tokens lie on the largest grid that they fit; None if they are no tokens."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return None
    for rows, columns in grids:
        if rows * columns < 2:
            return None
        if output.ndim == 4 and tuple(output.shape[1:3]) == (rows, columns):
            return Tokens((rows, columns), 0, False)
        extra = output.shape[1] - rows * columns
        if output.ndim == 3 and 0 <= extra <= min(_MOST_EXTRA, rows * columns - 1):
            return Tokens((rows, columns), extra, True)
    return None


def _last_norm_of_tokens(
    function: Callable[..., Tensor], grids: list[tuple[int, int]], images: Tensor, *arguments: Any
) -> tuple[nn.Module, Tokens]:
    with _watched(function) as seen, torch.enable_grad():
        score = function(images.detach().clone().requires_grad_(), *arguments)
    found = [
        (module, output, tokens)
        for module, output in seen
        if _is_norm(module) and isinstance(output, Tensor) and (tokens := _tokens(output, grids))
    ]
    outputs = [output for _, output, _ in found if output.requires_grad]
    if score.requires_grad and len(outputs) == len(found):
        gradients = torch.autograd.grad(score.sum(), outputs, allow_unused=True)
        for (module, _, tokens), gradient in zip(reversed(found), reversed(gradients), strict=True):
            if gradient is not None and bool(tokens.to_maps(gradient).any()):
                return module, tokens
    raise InputError(
        "this transformer shows no layer whose tokens have a place and count for the score: name one with layer=…"
    )


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
