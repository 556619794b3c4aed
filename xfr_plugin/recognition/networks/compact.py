"""A compact residual network for aligned faces, made for two CPU cores and for attribution.

Only 3×3 convolutions, BatchNorm right after each, ReLU as a module of its own, plain additions: fast in
oneDNN's kernels, and every rule of relevance propagation applies. The head is that of MobileFaceNet (Chen et
al., CCBR 2018): a depthwise convolution as large as the last feature map, then a linear layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["CompactResNet"]


class CompactResNet(nn.Module):
    """Compact residual network: N×3×112×112 → N×`embedding_dim` (not normalised).

    Args:
        stem: channels of the two first convolutions, each of stride 2 (112 → 56 → 28 pixels).
        widths: channels of the stages at 28, 14 and 7 pixels.
        blocks: residual blocks of each stage.
        embedding_dim: length of the embedding.
    """

    def __init__(
        self,
        stem: tuple[int, int] = (24, 32),
        widths: Sequence[int] = (32, 72, 144),
        blocks: Sequence[int] = (1, 2, 2),
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_bn_relu(3, stem[0], 2), _conv_bn_relu(stem[0], stem[1], 2))
        inputs = [stem[1], *widths]
        self.stages = nn.Sequential(
            *(_stage(inputs[i], widths[i], blocks[i], stride=1 if i == 0 else 2) for i in range(len(widths)))
        )
        self.gdconv = nn.Conv2d(widths[-1], widths[-1], kernel_size=7, groups=widths[-1], bias=False)
        self.gdnorm = nn.BatchNorm2d(widths[-1])
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(widths[-1], embedding_dim, bias=False)
        self.norm = nn.BatchNorm1d(embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        x = self.gdnorm(self.gdconv(self.stages(self.stem(images))))
        embedding: Tensor = self.norm(self.linear(self.flatten(x)))
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


def _conv_bn_relu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = (
        [] if inputs == outputs and stride == 1 else [_conv_bn_relu(inputs, outputs, stride)]
    )
    return nn.Sequential(*layers, *(_Residual(outputs) for _ in range(blocks)))
