"""A compact residual network for aligned faces: a plain front, and the second half of MobileFaceNet.

In MobileFaceNet (Chen et al., CCBR 2018, arXiv 1804.07573) more than two thirds of the time on a CPU goes into the
depthwise layers at 56 and 28 pixels. Here plain 3×3 convolutions and residual blocks, which run several times
as fast there, compute the same 14×14 feature map; what follows keeps MobileFaceNet's layout, so that a trained
MobileFaceNet can lend its weights (after SimKD, Chen et al., CVPR 2022, arXiv 2203.14001). Every activation is a
ReLU module of its own, every BatchNorm follows a convolution, and branches meet in plain additions.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["MOBILE_BLOCKS_REPLACED", "CompactFaceNet"]

MOBILE_BLOCKS_REPLACED = 11
"""The front stands for MobileFaceNet's stem and so many of its 15 inverted residual blocks."""

_FRONT = (24, 40, 96)
_MAP = 128
# (expansion, stride, skip) of the blocks that are left
_BLOCKS = ((2, 1, True), (4, 2, False), (2, 1, True), (2, 1, True))


class CompactFaceNet(nn.Module):
    """Compact face recognizer: N×3×112×112 → N×`embedding_dim` (not normalised)."""

    def __init__(self, embedding_dim: int = 128) -> None:
        super().__init__()
        first, second, third = _FRONT
        self.front = nn.Sequential(
            _conv_bn_relu(3, first, kernel=3, stride=2),
            _conv_bn_relu(first, second, kernel=3, stride=2),
            _Residual(second),
            _conv_bn_relu(second, third, kernel=3, stride=2),
            _Residual(third),
            _Residual(third),
            nn.Conv2d(third, _MAP, kernel_size=1, bias=False),
            nn.BatchNorm2d(_MAP),
        )
        self.features = nn.Sequential(*(_InvertedResidual(_MAP, *block) for block in _BLOCKS))
        self.conv2 = _conv_bn_relu(_MAP, 512, kernel=1)
        self.gdconv = _GlobalDepthwise(512, kernel=7)
        self.conv3 = nn.Conv2d(512, embedding_dim, kernel_size=1)
        self.bn = nn.BatchNorm2d(embedding_dim)
        self.flatten = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        x = self.conv2(self.features(self.front(images)))
        embedding: Tensor = self.flatten(self.bn(self.conv3(self.gdconv(x))))
        return embedding


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


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


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, expansion: int, stride: int, has_skip: bool) -> None:
        super().__init__()
        hidden = channels * expansion
        self.has_skip = has_skip
        self.conv = nn.Sequential(
            _conv_bn_relu(channels, hidden, kernel=1),
            _conv_bn_relu(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.has_skip else out


class _GlobalDepthwise(nn.Module):
    """A depthwise convolution as large as the feature map: a learned weight for each place on the face."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.depthwise(x))
        return out
