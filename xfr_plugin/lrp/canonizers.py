"""A canonizer for face networks: the same function, in a form for which relevance rules are defined."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from zennit.canonizers import Canonizer

from xfr_plugin.errors import InputError
from xfr_plugin.lrp._changes import Changes
from xfr_plugin.lrp.batchnorm import fold_batchnorms
from xfr_plugin.lrp.functional import give_functions_modules
from xfr_plugin.lrp.layers import Cosine, L2Normalize
from xfr_plugin.lrp.tracing import SHAPE_METHODS, called_module, whole_graphs
from xfr_plugin.recognition.outputs import Part

__all__ = ["FaceCanonizer", "is_embedding_layer"]

_MARK = "lrp_embedding_layer"


class FaceCanonizer(Canonizer):  # type: ignore[misc]  # Zennit is untyped
    """Fold BatchNorm, and give additions, gates and functional activations modules, in any readable network.

    The structure is read from the forward functions (`torch.fx`), so no class of a network has to be known: it serves
    iResNet and IR-SE (BatchNorm before and after convolutions, PReLU, squeeze-and-excitation), both forms of
    MobileFaceNet, torchvision's ResNets and InceptionResnetV1 (scaled residuals), and networks like them. See
    `fold_batchnorms` and `give_functions_modules`. It also marks the embedding layers: the linear layers at the end,
    after which no activation follows.

    The output stays the same up to rounding, and removal puts back every parameter, attribute and child: the same
    objects. While it is applied, `state_dict()` holds folded weights: save a network before or after, not meanwhile.

    Args:
        strict: refuse a network in training mode at once; otherwise leave it as it is, and refuse its forward
            pass. Zennit's own composites can be registered on a training network, and so can ours.

    Raises:
        InputError: (on `apply`) a scripted or traced network, which hooks cannot enter; training mode; a forward
            function that cannot be read, or a function in it that has no rule.
    """

    def __init__(self, strict: bool = True) -> None:
        super().__init__()
        self.strict = strict
        self.changes = Changes()

    def apply(self, root_module: nn.Module) -> list[FaceCanonizer]:
        """Canonize the network; `remove` on the returned instance undoes it."""
        _refuse_scripted(root_module)
        instance = self.copy()
        try:
            instance.register(root_module)
        except BaseException:
            instance.remove()
            raise
        return [instance]

    def register(self, root_module: nn.Module) -> None:
        """Make the changes."""
        training = [module for module in _modal(root_module) if module.training]
        if training and self.strict:
            _refuse_training(training[0])
        for module in _modal(root_module):
            self.changes.add_handle(module.register_forward_pre_hook(_check_mode))
        if training:
            return
        for (
            module
        ) in root_module.modules():  # Zennit 1.0 puts new parameter objects in place of those it modifies
            if module._parameters:
                self.changes.keep_parameters(module)
        self.rewrite(root_module)

    def rewrite(self, root_module: nn.Module) -> None:
        """Bring the network, which is in evaluation mode, into the form; `remove` undoes `changes`."""
        _mark_embedding_layers(root_module, self.changes)
        fold_batchnorms(root_module, self.changes)
        give_functions_modules(root_module, self.changes)

    def remove(self) -> None:
        """Undo all changes."""
        self.changes.undo()

    def copy(self) -> FaceCanonizer:
        """Return a canonizer of the same options."""
        return FaceCanonizer(self.strict)


def is_embedding_layer(module: nn.Module) -> bool:
    """Whether the canonizer found this layer at the linear end of the network."""
    return bool(module.__dict__.get(_MARK, False))


def _modal(root: nn.Module) -> list[nn.Module]:
    return [module for module in root.modules() if isinstance(module, (_BatchNorm, _DropoutNd))]


def _check_mode(module: nn.Module, inputs: Any) -> None:
    if module.training:
        _refuse_training(module)


def _refuse_training(module: nn.Module) -> None:
    raise InputError(
        f"the network is in training mode ({type(module).__name__} would not compute a fixed function): call "
        ".eval() first"
    )


def _refuse_scripted(root: nn.Module) -> None:
    for name, module in root.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"{name or 'the network'} is a scripted or traced module, whose layers cannot be given rules: use "
                "the original nn.Module"
            )


def _mark_embedding_layers(root: nn.Module, changes: Changes) -> None:
    for part, graph in whole_graphs(root):
        output = next(node for node in graph.nodes if node.op == "output")
        for layer in _linear_end(part, output):
            changes.set_attribute(layer, _MARK, True)


_LINEAR = (nn.Linear, nn.modules.conv._ConvNd)
_POOLING = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_NEUTRAL = (_BatchNorm, _DropoutNd, nn.Flatten, nn.Identity, Cosine, L2Normalize, Part, *_POOLING)
_NEUTRAL_FUNCTIONS = (torch.flatten, functional.normalize, functional.dropout, *SHAPE_METHODS)


def _linear_end(part: nn.Module, output: fx.Node) -> list[nn.Module]:
    """Linear layers behind the last activation or sum, from the end."""
    found: list[nn.Module] = []
    sources = output.all_input_nodes
    while len(sources) == 1 and sources[0].op != "placeholder":
        node = sources[0]
        module = called_module(part, node)
        if isinstance(module, _LINEAR):
            found.append(module)
        elif not (isinstance(module, _NEUTRAL) or node.target in _NEUTRAL_FUNCTIONS):
            break
        given = node.args
        if isinstance(module, Part) and not isinstance(given[0], fx.Node):
            given = (given[0][module.place],)  # type: ignore[index]  # a dictionary or tuple of nodes
        sources = [source for source in given if isinstance(source, fx.Node)]
    return found
