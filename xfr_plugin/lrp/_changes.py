"""Changes to a network that are undone in reverse order, to the same objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

__all__ = ["Changes"]


class Changes:
    """A list of changes to modules; `undo` puts every attribute, parameter and child back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def keep_parameters(self, module: nn.Module) -> None:
        """Put the module's own parameters back in the end: the same objects, and None where there was none."""
        kept = dict(module._parameters)

        def restore() -> None:
            module._parameters.clear()
            module._parameters.update(kept)

        self._undo.append(restore)

    def set_attribute(self, module: nn.Module, name: str, value: Any) -> None:
        """Set a plain attribute of the instance (also `forward`), which may hide one of its class."""
        attributes = module.__dict__
        if name in attributes:
            self._undo.append(partial(attributes.__setitem__, name, attributes[name]))
        else:
            self._undo.append(lambda: attributes.pop(name, None))
        attributes[name] = value

    def add_child(self, module: nn.Module, name: str, child: nn.Module) -> None:
        """Add a child module."""
        module.add_module(name, child)
        self._undo.append(lambda: module._modules.pop(name, None))

    def add_handle(self, handle: Any) -> None:
        """Remove this hook's handle in the end."""
        self._undo.append(handle.remove)

    def undo(self) -> None:
        """Undo all changes, the last first. A second call does nothing."""
        while self._undo:
            self._undo.pop()()
