"""Network architectures of published face recognizers, and the registry that names them.

Every activation is its own, non-in-place module, because attribution hooks need one module per use.
"""

from __future__ import annotations

from torch import nn

from xfr_plugin.errors import UnknownNameError
from xfr_plugin.recognition.networks._architecture import ARCHITECTURES, Architecture, architecture
from xfr_plugin.recognition.networks.compact import CompactFaceNet
from xfr_plugin.recognition.networks.faceid import FaceIdNet
from xfr_plugin.recognition.networks.iresnet import IResNet, iresnet18, iresnet34, iresnet50, iresnet100
from xfr_plugin.recognition.networks.mobilefacenet import MobileFaceNet
from xfr_plugin.recognition.networks.mobilefacenet_prelu import MobileFaceNetPReLU

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CompactFaceNet",
    "FaceIdNet",
    "IResNet",
    "MobileFaceNet",
    "MobileFaceNetPReLU",
    "architecture",
    "build_network",
    "get_architecture",
    "iresnet18",
    "iresnet34",
    "iresnet50",
    "iresnet100",
]


def build_network(architecture: str) -> nn.Module:
    """Build an architecture by name, with untrained weights.

    Raises:
        UnknownNameError: if `architecture` is not a key of `ARCHITECTURES`.
    """
    return get_architecture(architecture)()


def get_architecture(name: str) -> Architecture:
    """Return an architecture by name.

    Raises:
        UnknownNameError: no architecture of this name.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError.of("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]
