"""First stage of a distillation: the student inherits its second half, and its front learns the teacher's.

The teacher's map of 14×14×128 features is a target for every place of every image, which teaches far more an
image than one embedding does.
"""

from __future__ import annotations

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

__all__ = ["FrontTask", "inherit_weights", "teacher_front"]

_BLOCKS = "features."


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
        self.front = teacher_front(_mobile(teacher))
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


def teacher_front(network: MobileFaceNet) -> nn.Module:
    """The part of a MobileFaceNet that the student's front stands for, folded, in evaluation mode."""
    blocks = list(network.features.children())[:MOBILE_BLOCKS_REPLACED]
    front = nn.Sequential(network.conv1, network.dw_conv, *blocks).eval()
    return fold_batchnorm(front).requires_grad_(False)


def inherit_weights(student: CompactFaceNet, teacher: Recognizer, front: nn.Module) -> CompactFaceNet:
    """Give a student a trained front and the second half of its teacher (whose ReLU6 become ReLU).

    Raises:
        InputError: the teacher is no MobileFaceNet with an embedding as long as the student's.
    """
    lent = _mobile(teacher).state_dict()
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


def _mobile(teacher: Recognizer) -> MobileFaceNet:
    if not isinstance(teacher.network, MobileFaceNet):
        raise InputError(
            f"teacher {teacher.name!r} is no MobileFaceNet and cannot lend its second half: set front_epochs = 0"
        )
    return teacher.network
