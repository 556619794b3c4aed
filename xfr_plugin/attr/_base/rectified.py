"""Networks whose activations Captum's DeepLift knows: ReLU6 and PReLU rewritten with ReLU.

DeepLift's rescale rule replaces the slope of an activation by the ratio of its differences. Captum applies it to the
activations of its list, which lacks ReLU6 and PReLU, and silently takes the plain gradient of all others. Both are
sums of rectifiers, relu6(x) = relu(x) − relu(x − 6) and prelu(x) = relu(x) − a·relu(−x), and the rule is linear in
such a sum: on the rewritten network Captum's rule is exactly the rescale rule of the original.

Captum sets the gradient of an activation's input tensor as a whole. Where another layer reads that tensor too, as in
pre-activation blocks, its share would be lost: every activation gets a tensor of its own.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules import activation

from xfr_plugin.base.captum import SUPPORTED_NON_LINEAR
from xfr_plugin.base.replicas import replica
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.exported import is_exported

__all__ = ["rectified_copy"]

Network = TypeVar("Network", bound=nn.Module)


class _Own(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.activation(values.clone())
        return result


class _Relu6(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.ReLU()
        self.upper = nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.lower(values.clone()) - self.upper(values - 6)
        return result


class _Prelu(nn.Module):
    def __init__(self, slope: nn.Parameter) -> None:
        super().__init__()
        self.slope = slope
        self.positive = nn.ReLU()
        self.negative = nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        slope = self.slope if len(self.slope) == 1 else self.slope.view(-1, *(1,) * (values.ndim - 2))
        result: Tensor = self.positive(values.clone()) - slope * self.negative(-values)
        return result


def rectified_copy(network: Network) -> Network:
    """A replica of a network, of the same function, with activations that Captum's DeepLift handles.

    Raises:
        InputError: an activation for which there is no rescale rule (GELU, SiLU, attention …). Activations that
            are called as functions cannot be seen; DeepLift takes their plain gradient.
    """
    network = replica(network)
    if any(is_exported(part) for part in network.modules()):
        raise InputError(
            "DeepLift has no rules for exported networks, whose activations are no modules: use another method, e.g. "
            "integrated gradients"
        )
    for name, module in list(network.named_modules()):
        if type(module) in (nn.ReLU6, nn.PReLU, *SUPPORTED_NON_LINEAR):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _rewritten(module))
        elif _is_unknown(module):
            raise InputError(
                f"DeepLift has no rule for {type(module).__name__} (layer {name}): use another method for this "
                "network, e.g. integrated gradients"
            )
    return network


def _rewritten(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.PReLU):
        return _Prelu(module.weight)
    return _Relu6() if isinstance(module, nn.ReLU6) else _Own(module)


def _is_unknown(module: nn.Module) -> bool:
    is_activation = type(module).__module__ == activation.__name__
    return is_activation and type(module) not in (*SUPPORTED_NON_LINEAR, nn.ReLU6, nn.PReLU)
