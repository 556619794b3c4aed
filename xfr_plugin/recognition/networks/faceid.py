"""A plain convolutional recognizer: no BatchNorm, no skips, no biases.

Architecture and key layout of the FaceID model published at github.com/analogdevicesinc/ai8x-synthesis
(Apache-2.0). It is weak, and handy where a network without special layers is wanted.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from xfr_plugin.recognition.networks._architecture import architecture

__all__ = ["FaceIdNet"]

_WIDTHS = (3, 16, 32, 32, 64, 64, 64, 64)
_POOLED = (2, 3, 4, 5, 8)
_TOP = 127 / 128


@architecture(
    name="faceid",
    paper="none",
    layout="analogdevicesinc/ai8x-synthesis (Apache-2.0)",
    input_size=(160, 120),
    mean=(128 / 255,) * 3,
    std=(128 / 255,) * 3,
)
class FaceIdNet(nn.Module):
    """FaceID: N×3×160×120 → N×512 (not normalised), 176,048 parameters."""

    def __init__(self) -> None:
        super().__init__()
        for i, (inputs, outputs) in enumerate(pairwise(_WIDTHS), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False))
            self.add_module(f"act{i}", nn.Hardtanh(0.0, _TOP))
        self.conv8 = nn.Conv2d(_WIDTHS[-1], 512, kernel_size=1, bias=False)
        self.act8 = nn.Hardtanh(-1.0, _TOP)
        for i in _POOLED:
            self.add_module(f"pool{i}", nn.MaxPool2d(2))
        self.average = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        x = images
        for i in range(1, 9):
            if i in _POOLED:
                x = self.get_submodule(f"pool{i}")(x)
            x = self.get_submodule(f"act{i}")(self.get_submodule(f"conv{i}")(x))
        pooled: Tensor = self.average(x)
        return pooled.flatten(1)
