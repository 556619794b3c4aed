"""What a student inherits of its teacher, and what its front learns of the teacher's.

A teacher's map of features is a target for every place of every image, which teaches far more an image than one
embedding does. A student with few blocks of its own gets the teacher's second half; one whose front stands for all of
the teacher's blocks, the head.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.errors import InputError
from xfr_plugin.recognition.folding import fold_batchnorm
from xfr_plugin.recognition.networks.compact import MOBILE_BLOCKS_REPLACED, CompactFaceNet
from xfr_plugin.recognition.networks.mobilefacenet import MobileFaceNet
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.training.augment import AugmentConfig, augment
from xfr_plugin.training.engine import Task
from xfr_plugin.training.faces_data import FaceSet
from xfr_plugin.training.manifest import Manifest

__all__ = [
    "LAST_MAP",
    "FrontTask",
    "inherit_weights",
    "mobile_of",
    "take_over",
    "teacher_front",
    "teacher_head",
]

LAST_MAP = (7, 7)
"""Places of the last map of features of a MobileFaceNet, for faces of 112×112 pixels."""

_BLOCKS = "features."
_Student = TypeVar("_Student", bound=nn.Module)


class FrontTask(Task):
    """Learn the teacher's feature map; teacher and student see the same augmented view."""

    metric = "map"
    maximise = False

    def __init__(
        self,
        teacher: Recognizer,
        images: Tensor,
        validation: FaceSet,
        config: AugmentConfig,
        manifest: Manifest,
    ) -> None:
        self.teacher = teacher
        self.images, self.config, self.manifest = images, config, manifest
        self.front = teacher_front(mobile_of(teacher))
        self.examples = len(images)
        chosen = torch.linspace(0, len(validation) - 1, min(128, len(validation))).long()
        self.validation = validation.batch(chosen)

    def build_network(self) -> nn.Module:
        """The front of an untrained student."""
        return CompactFaceNet().front.to(memory_format=torch.channels_last)

    def to(self, device: torch.device) -> None:
        """Move the teacher."""
        self.device = device
        self.teacher.to(device)
        self.front.to(device)

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Squared error of the feature map, as a share of its variance."""
        views = augment(self.images[indices].float() / 255, self.config, generator)
        return {"total": self._error(self.network, views)}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """The same error on held-out people, without augmentation."""
        return {"map": float(self._error(network, self.validation))}

    def _error(self, network: nn.Module, images: Tensor) -> Tensor:
        inputs = images.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted: Tensor = self.front(self.teacher.preprocess(inputs)).float()
        found: Tensor = network(self.teacher.preprocess(inputs)).float()
        return functional.mse_loss(found, wanted) / wanted.var()


def teacher_front(network: MobileFaceNet, replaced: int | None = MOBILE_BLOCKS_REPLACED) -> nn.Module:
    """The part of a MobileFaceNet that a student's front stands for, folded, in evaluation mode.

    Args:
        network: the teacher's.
        replaced: how many of its blocks; None for all.
    """
    blocks = list(network.features.children())[:replaced]
    front = nn.Sequential(network.conv1, network.dw_conv, *blocks).eval()
    return fold_batchnorm(front).requires_grad_(False)


def teacher_head(network: MobileFaceNet) -> nn.Module:
    """What makes an embedding of the last map of features, 7×7×128, folded, in evaluation mode."""
    head = nn.Sequential(network.conv2, network.gdconv, network.conv3, network.bn, nn.Flatten()).eval()
    return fold_batchnorm(head).requires_grad_(False)


def take_over(student: nn.Module, source: Recognizer) -> list[nn.Module]:
    """Give layers of a student's front the trained weights of those that are alike in another one's, and freeze them.

    Returns:
        The layers that were alike; the front's first ones, one after the other.

    Raises:
        InputError: none are.
    """
    lent = dict(source.network.get_submodule("front").named_children()) if _has_front(source) else {}
    taken = []
    for name, layer in student.get_submodule("front").named_children():
        if name not in lent or _shapes(lent[name]) != _shapes(layer):
            break
        layer.load_state_dict(lent[name].state_dict())
        taken.append(layer.requires_grad_(False))
    if not taken:
        raise InputError(f"{source.name} has no layers like those of the student's front: leave start out")
    return taken


def _has_front(recognizer: Recognizer) -> bool:
    return "front" in recognizer.network._modules


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


def inherit_weights(student: _Student, teacher: Recognizer, front: nn.Module) -> _Student:
    """Give a student a trained front and what follows it of its teacher (whose ReLU6 become ReLU).

    Raises:
        InputError: the teacher is no MobileFaceNet with an embedding as long as the student's.
    """
    lent = mobile_of(teacher).state_dict()
    own = student.state_dict()
    for name in own:
        if name.startswith("front."):
            own[name] = front.state_dict()[name.removeprefix("front.")]
        elif name.startswith(_BLOCKS):
            number, rest = name.removeprefix(_BLOCKS).split(".", 1)
            own[name] = lent[f"{_BLOCKS}{int(number) + MOBILE_BLOCKS_REPLACED}.{rest}"]
        else:
            own[name] = lent[name]
    student.load_state_dict(own)
    return student


def mobile_of(teacher: Recognizer) -> MobileFaceNet:
    """The network of a teacher that can lend parts of itself.

    Raises:
        InputError: it is no MobileFaceNet.
    """
    if not isinstance(teacher.network, MobileFaceNet):
        raise InputError(
            f"teacher {teacher.name!r} is no MobileFaceNet and cannot lend its second half: set front_epochs = 0 "
            "and map = 0"
        )
    return teacher.network
