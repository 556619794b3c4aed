"""MobileFaceNet with ReLU6 (Chen et al., CCBR 2018, arXiv 1804.07573).

Key layout of the state dicts published at github.com/foamliu/MobileFaceNet (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from xfr_plugin.recognition.networks._architecture import architecture

__all__ = ["GlobalDepthwise", "InvertedResidual", "MobileFaceNet", "conv_bn_act"]

# (expansion, output channels, repeats, first stride) of each stage
_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


@architecture(
    name="mobilefacenet",
    paper="Chen et al., CCBR 2018, arXiv 1804.07573, with ReLU6",
    layout="foamliu/MobileFaceNet (Apache-2.0)",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
class MobileFaceNet(nn.Module):
    """MobileFaceNet: N×3×112×112 → N×`embedding_dim` (not normalised), about one million parameters."""

    def __init__(self, embedding_dim: int = 128) -> None:
        super().__init__()
        self.conv1 = conv_bn_act(3, 64, kernel=3, stride=2)
        self.dw_conv = _DepthwiseSeparable(64, 64)
        self.features = nn.Sequential(*_inverted_residuals(64))
        self.conv2 = conv_bn_act(128, 512, kernel=1)
        self.gdconv = GlobalDepthwise(512, kernel=7)
        self.conv3 = nn.Conv2d(512, embedding_dim, kernel_size=1)
        self.bn = nn.BatchNorm2d(embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        x = self.conv2(self.features(self.dw_conv(self.conv1(images))))
        embedding: Tensor = self.bn(self.conv3(self.gdconv(x)))
        return embedding.flatten(1)


def conv_bn_act(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] = nn.ReLU6,
) -> nn.Sequential:
    """Convolution that keeps the size (but for its stride), BatchNorm, and an activation of its own."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    )


def _inverted_residuals(inputs: int) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for expansion, outputs, repeats, stride in _STAGES:
        for i in range(repeats):
            blocks.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion))
            inputs = outputs
    return blocks


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to the input where the shapes allow it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        expansion: int,
        activation: Callable[[], nn.Module] = nn.ReLU6,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.has_skip = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv_bn_act(inputs, hidden, kernel=1, activation=activation),
            conv_bn_act(hidden, hidden, kernel=3, stride=stride, groups=hidden, activation=activation),
            nn.Conv2d(hidden, outputs, kernel_size=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Filter a feature map."""
        out: Tensor = self.conv(x)
        return x + out if self.has_skip else out


class _DepthwiseSeparable(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, kernel_size=3, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.depthwise(x)))
        out: Tensor = self.relu2(self.bn2(self.pointwise(x)))
        return out


class GlobalDepthwise(nn.Module):
    """A depthwise convolution as large as the feature map: a learned weight for each place on the face."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh a feature map to one value a channel."""
        out: Tensor = self.bn(self.depthwise(x))
        return out
