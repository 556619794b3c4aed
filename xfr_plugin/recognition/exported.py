"""Networks that `torch.export` gave, as modules of torch whose mode can be set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import MethodType
from typing import Any

from torch import fx, nn

from xfr_plugin.errors import InputError

__all__ = ["as_network", "is_exported"]


def as_network(network: object) -> object:
    """An exported program, or the module that it gives, as a plain module; anything else as it is.

    Gradients pass it, but its layers are gone: it is one function of torch's operators.

    Raises:
        InputError: it was exported for a fixed number of images.
    """
    export = sys.modules.get("torch.export.exported_program")  # slow to import, and who has a program has it
    if export is not None and isinstance(network, export.ExportedProgram):
        network = network.module()
    if not isinstance(network, fx.GraphModule) or not isinstance(network.__dict__.get("eval"), MethodType):
        return network  # those of exported programs refuse to change their mode
    for node in network.graph.nodes:
        shape: Sequence[Any] = getattr(node.meta.get("val"), "shape", ()) if node.op == "placeholder" else ()
        if len(shape) == 4 and isinstance(shape[0], int):
            raise InputError(
                f"this network was exported for {shape[0]} images at a time: export it with two, for any number, by "
                'torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("n")},))'
            )
    return fx.GraphModule(network, network.graph)


def is_exported(network: nn.Module) -> bool:
    """Whether a module computes by torch's operators alone, and so calls none of its layers."""
    return isinstance(network, fx.GraphModule) and any(
        str(getattr(node.target, "namespace", "")) == "aten" for node in network.graph.nodes
    )
