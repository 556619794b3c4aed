"""Additions, gates and activations written as functions get modules of their own, so that rules reach them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from zennit.types import Activation, MaxPool

from xfr_plugin.errors import InputError
from xfr_plugin.lrp._changes import Changes
from xfr_plugin.lrp.layers import Branches, Elementwise, Gated, L2Normalize, Pooled, Shifted
from xfr_plugin.lrp.tracing import SHAPE_METHODS, calls, own_graph
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["functions_without_rule", "give_functions_modules"]

_CHILD = "lrp_function_{}"

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_QUOTIENTS = (operator.truediv, operator.itruediv, torch.div, "div", "div_")
_DIFFERENCES = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_ACTIVATIONS = (
    *(torch.relu, torch.sigmoid, torch.tanh, "relu", "relu_", "sigmoid", "tanh", "clamp", torch.clamp),
    *(functional.relu, functional.relu6, functional.leaky_relu, functional.hardtanh, functional.sigmoid),
    *(functional.tanh, functional.silu, functional.elu, functional.gelu, functional.softplus),
    *(functional.hardsigmoid, functional.hardswish),
)
_AVERAGES = ("mean", torch.mean, functional.avg_pool2d, functional.adaptive_avg_pool2d)
_UNCHANGED = (
    *(getattr, operator.getitem, torch.flatten, torch.cat, torch.squeeze, torch.unsqueeze, torch.reshape),
    *(functional.dropout, functional.pad, functional.max_pool2d, functional.adaptive_max_pool2d),
    *(torch.nn.functional.dropout2d, torch.transpose, torch.permute, torch.chunk, torch.split),
    *SHAPE_METHODS,
)
_REUSABLE = (Activation, MaxPool, nn.Dropout, nn.Flatten, nn.Identity)
_SIZES = (operator.mul, operator.floordiv, operator.add, operator.sub)


def give_functions_modules(root: nn.Module, changes: Changes) -> None:
    """Rewrite every forward function of `root` that computes with functions, and note how to undo it.

    Additions become a sum of the stacked branches (`Branches`); a product of a signal with its gate `Gated`, where
    the gate is what was computed from the signal, or ends in a sigmoid; functional activations and multiplications
    by a constant `Elementwise`; averages `Pooled`; normalisation `L2Normalize`. The outputs stay the same. Reshaping,
    concatenation, max-pooling and dropout stay as they are.

    Raises:
        InputError: a forward function that cannot be read, or that uses a function without a rule.
    """
    constants: Constants = {root: slice(1, None)}
    for name, module in list(root.named_modules()):
        if isinstance(module, Recognizer):
            _rewrite_recognizer(module, changes)
        elif _has_forward(module):
            _rewrite(_label(name, module), module, changes, constants)


def functions_without_rule(root: nn.Module) -> list[str]:
    """What the forward functions of `root` compute without a module, but for reshaping and the like."""
    found = []
    for name, module in root.named_modules():
        if _has_forward(module) and "forward" not in module.__dict__ and not isinstance(module, Recognizer):
            with _read(_label(name, module), module) as graph:
                nodes = [node for node in graph.nodes if not _may_stay(node)]
            found += [f"{_name(node)} in {_label(name, module)}" for node in nodes]
    return found


def _has_forward(module: nn.Module) -> bool:
    """Whether a module has children and a forward function that may do more than call them."""
    return bool(module._modules) and type(module).forward not in (nn.Sequential.forward, nn.Module.forward)


def _label(name: str, module: nn.Module) -> str:
    return f"{type(module).__name__} ({name or 'the network'})"


@contextmanager
def _read(what: str, module: nn.Module) -> Iterator[fx.Graph]:
    stack = ExitStack()
    try:
        graph = stack.enter_context(own_graph(module))
    except Exception as error:  # tracing foreign code can fail in any way
        raise InputError(
            f"cannot read the forward function of {what}: {error}; relevance needs one without control flow that "
            "depends on values"
        ) from error
    with stack:
        yield graph


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", node.target))


def _may_stay(node: fx.Node) -> bool:
    return node.op not in ("call_function", "call_method") or node.target in _UNCHANGED or _is_size(node)


def _rewrite(what: str, module: nn.Module, changes: Changes, constants: Constants) -> None:
    with _read(what, module) as graph:
        _refuse_reuse(what, graph, module)
        fixed = _constant_nodes(graph, constants.get(module, ()))
        _note_constants(graph, module, fixed, constants)
        fixed |= _gate_nodes(graph, module, fixed)
        replacements = [(node, _replacement(node, module, what, fixed)) for node in graph.nodes]
        if not any(replacement for _, replacement in replacements):
            return
        # from the last: a node that is replaced later is then replaced in what stands for its users, too
        for node, replacement in reversed(replacements):
            if replacement is not None:
                _insert(graph, node, replacement, module, changes)
        changes.set_attribute(module, "forward", fx.GraphModule(module, graph).forward)


Constants: TypeAlias = dict[nn.Module, "slice | Sequence[int]"]
"""Positions of the arguments of modules that carry no relevance: what the network is given beside its images."""


def _constant_nodes(graph: fx.Graph, arguments: slice | Sequence[int]) -> set[fx.Node]:
    """Nodes that depend on nothing but parameters and constant arguments."""
    places = [node for node in graph.nodes if node.op == "placeholder"]
    given = places[arguments] if isinstance(arguments, slice) else [places[i] for i in arguments]
    fixed = set(given)
    for node in graph.nodes:
        if node.op == "get_attr" or (
            node.op.startswith("call") and all(source in fixed for source in node.all_input_nodes)
        ):
            fixed.add(node)
    return fixed


def _gate_nodes(graph: fx.Graph, module: nn.Module, fixed: set[fx.Node]) -> set[fx.Node]:
    """Nodes that do nothing but make gates, and so get no relevance."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        users = list(node.users)
        if users and all(user in found or _is_gate_of(node, user, module, fixed) for user in users):
            found.add(node)
    return found


def _is_gate_of(node: fx.Node, user: fx.Node, module: nn.Module, fixed: set[fx.Node]) -> bool:
    if _may_stay(user) or _with_constant(user, fixed):
        return False
    ordered = _gating(user, module)
    return ordered is not None and ordered[1] is node and ordered[0] is not node


def _note_constants(graph: fx.Graph, module: nn.Module, fixed: set[fx.Node], constants: Constants) -> None:
    for node in graph.nodes:
        if node.op == "call_module":
            child = module.get_submodule(str(node.target))
            constants[child] = [
                i
                for i, argument in enumerate(node.args)
                if argument in fixed or not isinstance(argument, fx.Node)
            ]


def _refuse_reuse(what: str, graph: fx.Graph, module: nn.Module) -> None:
    """A rule remembers one input: only rules that need none may serve a module that runs twice."""
    for target, count in calls(graph).items():
        used = module.get_submodule(target)
        if count > 1 and (isinstance(used, nn.PReLU) or not isinstance(used, _REUSABLE)):
            raise InputError(
                f"{what} uses {target} ({type(used).__name__}) {count} times, and a rule remembers one input: give "
                "each use a module of its own"
            )


Replacement = tuple[nn.Module, Callable[..., fx.Node]]


def _insert(
    graph: fx.Graph,
    node: fx.Node,
    replacement: Replacement,
    module: nn.Module,
    changes: Changes,
) -> None:
    stand_in, call = replacement
    name = next(_CHILD.format(i) for i in range(10**6) if _CHILD.format(i) not in module._modules)
    changes.add_child(module, name, stand_in.train(module.training))
    with graph.inserting_before(node):
        new = call(graph, name)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _replacement(node: fx.Node, module: nn.Module, what: str, fixed: set[fx.Node]) -> Replacement | None:
    """Module for a node and how to call it; None for a node that may stay."""
    if _may_stay(node) or node in fixed:
        return None
    operands = [argument for argument in node.all_input_nodes if not _is_size(argument)]
    is_unary = len(operands) == 1 and len(_tensors(node)) == 1
    found = _unary(node) if is_unary else _with_constant(node, fixed) or _binary(node, module)
    if found is None:
        raise InputError(
            f"{what} uses {_name(node)}, for which there is no rule: choose a method that needs no rules (see `xfr "
            "methods`) or, where they are for transformers, the composite attention_face; or write it as a module "
            "and give that a rule with layer_map=[(TheModule, the_rule)]"
        )
    return found


def _unary(node: fx.Node) -> Replacement | None:
    source = _tensors(node)[0]
    if node.target is functional.normalize:
        return L2Normalize(_argument(node, 2, "dim", 1)), _one(source)
    if node.target in _AVERAGES:
        return Pooled(_closed(node)), _one(source)
    constant = (*_ADDITIONS, *_PRODUCTS, *_DIFFERENCES)
    divided = node.target in _QUOTIENTS and node.args[0] is source
    if node.target in _ACTIVATIONS or node.target in constant or divided:
        return Elementwise(_closed(node)), _one(source)
    return None


def _with_constant(node: fx.Node, fixed: set[fx.Node]) -> Replacement | None:
    """A signal and a constant that is a node of its own."""
    tensors = _tensors(node)
    signals = [tensor for tensor in tensors if tensor not in fixed]
    if len(tensors) != 2 or len(node.args) != 2 or node.kwargs or len(signals) != 1:
        return None
    signal = signals[0]
    operands = (signal, tensors[1] if signal is tensors[0] else tensors[0])
    if node.target in _ADDITIONS:
        return Shifted(), partial(_call_with, operands=operands, argument="shift")
    if node.target in _PRODUCTS:
        return Gated(), partial(_call_with, operands=operands, argument="gate")
    if node.target in _DIFFERENCES and signal is tensors[0]:
        return Shifted(), partial(_call_with, operands=operands, argument="shift", function=torch.neg)
    if node.target in _QUOTIENTS and signal is tensors[0]:
        return Gated(), partial(_call_with, operands=operands, argument="gate", function=torch.reciprocal)
    return None


def _binary(node: fx.Node, module: nn.Module) -> Replacement | None:
    tensors = _tensors(node)
    if len(tensors) != 2 or len(node.args) != 2 or node.kwargs:
        return None
    if node.target in _ADDITIONS:
        return Branches(), partial(_call_sum, operands=tensors)
    ordered = _gating(node, module)
    if ordered is None:
        return None
    function = torch.reciprocal if node.target in _QUOTIENTS else None
    return Gated(), partial(_call_with, operands=ordered, argument="gate", function=function)


def _gating(node: fx.Node, module: nn.Module) -> tuple[fx.Node, fx.Node] | None:
    """Signal and gate of a product, or of a quotient by what is computed from the dividend, such as its norm."""
    tensors = _tensors(node)
    if len(tensors) != 2 or len(node.args) != 2 or node.kwargs:
        return None
    if node.target in _PRODUCTS:
        return _signal_and_gate(tensors[0], tensors[1], module)
    if node.target in _QUOTIENTS and tensors[0] in _ancestors(tensors[1]):
        return tensors[0], tensors[1]
    return None


def _one(source: fx.Node) -> Callable[..., fx.Node]:
    return lambda graph, name: graph.call_module(name, (source,))


def _call_sum(graph: fx.Graph, name: str, operands: list[fx.Node]) -> fx.Node:
    stacked = graph.call_function(_stack, tuple(operands))
    return graph.call_module(name, (stacked,))


def _call_with(
    graph: fx.Graph,
    name: str,
    operands: tuple[fx.Node, fx.Node],
    argument: str,
    function: Callable[[Tensor], Tensor] | None = None,
) -> fx.Node:
    """Call a module with a signal, and with something that carries no relevance as a keyword argument."""
    signal, other = operands
    if function is not None:
        other = graph.call_function(function, (other,))
    return graph.call_module(name, (signal,), {argument: other})


def _stack(first: Tensor, second: Tensor) -> Tensor:
    """Branches along the last dimension; in memory one after the other, each with its colours where they were."""
    branches = torch.broadcast_tensors(first, second)
    if first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last):
        return torch.stack([branch.movedim(1, 3) for branch in branches]).movedim((0, 4), (4, 1))
    return torch.stack(branches, dim=-1)


def _signal_and_gate(first: fx.Node, second: fx.Node, module: nn.Module) -> tuple[fx.Node, fx.Node] | None:
    """Order two factors: a gate is computed from the signal, is a parameter, or ends in a sigmoid."""
    for signal, gate in ((first, second), (second, first)):
        if gate.op == "get_attr" or signal in _ancestors(gate):
            return signal, gate
    gates = [factor for factor in (first, second) if _ends_in_sigmoid(factor, module)]
    if len(gates) != 1:
        return None
    return (second, first) if gates[0] is first else (first, second)


def _ends_in_sigmoid(node: fx.Node, module: nn.Module) -> bool:
    while node.op == "call_method" and node.target in SHAPE_METHODS:
        node = node.all_input_nodes[0]
    if node.op == "call_module":
        last = list(module.get_submodule(str(node.target)).modules())[-1]
        return isinstance(last, (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax))
    return node.target in (torch.sigmoid, functional.sigmoid, functional.hardsigmoid, "sigmoid")


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    queue = list(node.all_input_nodes)
    while queue:
        source = queue.pop()
        if source not in found and not _is_size(source):
            found.add(source)
            queue.extend(source.all_input_nodes)
    return found


def _is_size(node: fx.Node) -> bool:
    """Whether a node is a size or an attribute of a tensor, and not a tensor that carries relevance."""
    if node.op == "call_method" and node.target in ("size", "dim"):
        return True
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    if node.op == "call_function" and node.target in (operator.getitem, *_SIZES):
        sources = node.all_input_nodes
        return bool(sources) and all(_is_size(source) for source in sources)
    return False


def _tensors(node: fx.Node) -> list[fx.Node]:
    """Operands that are tensors, in the order of the arguments; one that is used twice counts twice."""
    return [argument for argument in node.args if isinstance(argument, fx.Node) and not _is_size(argument)]


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _closed(node: fx.Node) -> Callable[[Tensor], Tensor]:
    """The node's function of its one tensor, with all its other arguments filled in."""
    place = next(i for i, argument in enumerate(node.args) if isinstance(argument, fx.Node))
    before, after, kwargs = node.args[:place], node.args[place + 1 :], dict(node.kwargs)
    inplace = kwargs.pop("inplace", False)
    if node.op == "call_method":
        method = str(node.target).removesuffix("_")
        return lambda x: getattr(x, method)(*after, **kwargs)
    function: Any = node.target
    if inplace:
        kwargs["inplace"] = False
    return lambda x: function(*before, x, *after, **kwargs)


def _rewrite_recognizer(recognizer: Recognizer, changes: Changes) -> None:
    """Give a recognizer's preprocessing and its normalisation modules of their own."""
    compute = recognizer.preprocess
    flips = recognizer.channel_order == "BGR"
    scaling = Elementwise(lambda x: compute(x.flip(1)) if flips else compute(x))
    unit = L2Normalize()
    changes.add_child(recognizer, _CHILD.format("preprocess"), scaling.eval())
    changes.add_child(recognizer, _CHILD.format("normalize"), unit.eval())
    changes.set_attribute(recognizer, "preprocess", lambda x: scaling(x.flip(1) if flips else x))
    changes.set_attribute(recognizer, "forward", lambda x: unit(recognizer.features(x)))
