"""Network architectures of published face recognizers, and the registry that names them.

Every activation is its own, non-in-place module, because attribution hooks need one module per use.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from xfr_plugin.errors import UnknownNameError
from xfr_plugin.recognition.networks.compact import CompactFaceNet
from xfr_plugin.recognition.networks.faceid import FaceIdNet
from xfr_plugin.recognition.networks.iresnet import IResNet, iresnet18, iresnet34, iresnet50, iresnet100
from xfr_plugin.recognition.networks.mobilefacenet import MobileFaceNet
from xfr_plugin.recognition.networks.mobilefacenet_prelu import MobileFaceNetPReLU

__all__ = [
    "ARCHITECTURES",
    "CompactFaceNet",
    "FaceIdNet",
    "IResNet",
    "MobileFaceNet",
    "MobileFaceNetPReLU",
    "build_network",
    "iresnet18",
    "iresnet34",
    "iresnet50",
    "iresnet100",
]

ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "compact": CompactFaceNet,
    "faceid": FaceIdNet,
    "iresnet18": iresnet18,
    "iresnet34": iresnet34,
    "iresnet50": iresnet50,
    "iresnet100": iresnet100,
    "mobilefacenet": MobileFaceNet,
    "mobilefacenet_prelu": MobileFaceNetPReLU,
}
"""Architecture name → function that builds the network with untrained weights."""


def build_network(architecture: str) -> nn.Module:
    """Build an architecture by name, with untrained weights.

    Raises:
        UnknownNameError: if `architecture` is not a key of `ARCHITECTURES`.
    """
    if architecture not in ARCHITECTURES:
        raise UnknownNameError.of("architecture", architecture, ARCHITECTURES)
    return ARCHITECTURES[architecture]()
