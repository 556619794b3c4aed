"""Reading forward functions with `torch.fx`: which modules follow each other, and what is computed without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import fx, nn

from xfr_plugin.base.tracing import PrivateTracer
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["SHAPE_METHODS", "own_graph", "whole_graphs"]

_MOVING = (
    "view",
    "reshape",
    "flatten",
    "squeeze",
    "unsqueeze",
    "permute",
    "transpose",
    "expand",
    "expand_as",
)
_COPYING = ("contiguous", "clone", "float", "double", "half", "bfloat16", "to", "type_as", "detach")

SHAPE_METHODS = frozenset((*_MOVING, *_COPYING, "size", "dim", "chunk", "split"))
"""Tensor methods that move values about, or ask for sizes: relevance follows the gradient."""


class _Tracer(PrivateTracer):
    """Reads a module's forward function; modules for which `is_leaf` holds are not looked into."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether to stop at `m`."""
        return not self.whole or not m._modules or m.__module__.startswith("torch.nn.modules.activation")


@contextmanager
def own_graph(module: nn.Module, whole: bool = False) -> Iterator[fx.Graph]:
    """Graph of a module's own forward function, in which every child is one node, or only the last modules are.

    Inside the block the module keeps the constants that tracing found in its function.

    Raises:
        Exception: whatever tracing raises; forward functions whose flow depends on values cannot be read.
    """
    tracer = _Tracer(whole)
    graph = tracer.trace(module)
    constants = {name: tracer.root.__dict__[name] for name in tracer.root.__dict__.keys() - module.__dict__}
    module.__dict__.update(constants)
    try:
        yield graph
    finally:
        for name in constants:
            del module.__dict__[name]


def whole_graphs(root: nn.Module) -> Iterator[tuple[nn.Module, fx.Graph]]:
    """Graphs down to the last module, of the largest parts of `root` that can be read as a whole."""
    if isinstance(root, Recognizer):
        yield from whole_graphs(root.network)
        return
    if not root._modules:
        return
    try:
        with own_graph(root, whole=True) as graph:
            pass
    except Exception:  # foreign code can fail in any way; its parts may still be readable
        for child in root.children():
            yield from whole_graphs(child)
        return
    yield root, graph


def called_module(root: nn.Module, node: object) -> nn.Module | None:
    """The module that a node calls, or None."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return root.get_submodule(str(node.target))
    return None


def calls(graph: fx.Graph) -> dict[str, int]:
    """How often each module is called."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def is_flatten(node: fx.Node) -> bool:
    """Whether a node lays all but the batch dimension in a row, keeping the order."""
    if node.op == "call_method" and node.target == "flatten":
        return node.args[1:] == (1,) and not node.kwargs
    if node.op == "call_function" and node.target is torch.flatten:
        return node.args[1:] == (1,) and not node.kwargs
    if node.op == "call_method" and node.target in ("view", "reshape"):
        return len(node.args) == 3 and bool(node.args[2] == -1)
    return False
