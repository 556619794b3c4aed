"""A compact residual network for aligned faces: a plain front, and the second half of MobileFaceNet.

In MobileFaceNet (Chen et al., CCBR 2018, arXiv 1804.07573) more than two thirds of the time on a CPU goes into the
depthwise layers at 56 and 28 pixels. Here plain 3×3 convolutions and residual blocks, which run several times
as fast there, compute the same 14×14 feature map; what follows keeps MobileFaceNet's layout, so that a trained
MobileFaceNet can lend its weights (after SimKD, Chen et al., CVPR 2022, arXiv 2203.14001). Every activation is a
ReLU module of its own, every BatchNorm follows a convolution, and branches meet in plain additions.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from xfr_plugin.recognition.networks._architecture import architecture
from xfr_plugin.recognition.networks.mobilefacenet import GlobalDepthwise, InvertedResidual, conv_bn_act

__all__ = ["MOBILE_BLOCKS_REPLACED", "CompactFaceNet"]

MOBILE_BLOCKS_REPLACED = 11
"""The front stands for MobileFaceNet's stem and so many of its 15 inverted residual blocks."""

_conv = partial(conv_bn_act, activation=nn.ReLU)

_FRONT = (24, 40, 96)
_MAP = 128
# (stride, expansion) of the blocks that are left
_BLOCKS = ((1, 2), (2, 4), (1, 2), (1, 2))


@architecture(name="compact", paper="ours, after Chen et al., CCBR 2018, arXiv 1804.07573", layout="ours")
class CompactFaceNet(nn.Module):
    """Compact face recognizer: N×3×112×112 → N×`embedding_dim` (not normalised)."""

    def __init__(self, embedding_dim: int = 128) -> None:
        super().__init__()
        first, second, third = _FRONT
        self.front = nn.Sequential(
            _conv(3, first, kernel=3, stride=2),
            _conv(first, second, kernel=3, stride=2),
            _Residual(second),
            _conv(second, third, kernel=3, stride=2),
            _Residual(third),
            _Residual(third),
            nn.Conv2d(third, _MAP, kernel_size=1, bias=False),
            nn.BatchNorm2d(_MAP),
        )
        self.features = nn.Sequential(
            *(InvertedResidual(_MAP, _MAP, *block, activation=nn.ReLU) for block in _BLOCKS)
        )
        self.conv2 = _conv(_MAP, 512, kernel=1)
        self.gdconv = GlobalDepthwise(512, kernel=7)
        self.conv3 = nn.Conv2d(512, embedding_dim, kernel_size=1)
        self.bn = nn.BatchNorm2d(embedding_dim)
        self.flatten = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        x = self.conv2(self.features(self.front(images)))
        embedding: Tensor = self.flatten(self.bn(self.conv3(self.gdconv(x))))
        return embedding


class _Residual(nn.Module):
    """Two 3×3 convolutions, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu2(x + out)
        return result
