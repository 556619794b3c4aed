"""iResNet, the backbone of ArcFace (Deng et al., CVPR 2019; Duta et al., ICPR 2020, arXiv 2004.04989).

Key layout of the state dicts published by InsightFace's `arcface_torch`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from xfr_plugin.recognition.networks._architecture import architecture

__all__ = ["IResNet", "iresnet18", "iresnet34", "iresnet50", "iresnet100"]

_EPS = 1e-5
_WIDTHS = (64, 128, 256, 512)
_PAPER = "Deng et al., CVPR 2019; Duta et al., ICPR 2020, arXiv 2004.04989"
_LAYOUT = "InsightFace's arcface_torch"


class IResNet(nn.Module):
    """iResNet: N×3×H×W (112×112 unless `input_size` says otherwise) → N×`embedding_dim` (not normalised).

    Args:
        blocks: residual blocks in each of the four stages.
        embedding_dim: length of the embedding.
        input_size: height and width in pixels; the fully connected layer depends on them.
        dropout: probability in training; without effect in evaluation mode.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        embedding_dim: int = 512,
        input_size: tuple[int, int] = (112, 112),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=_EPS)
        self.prelu = nn.PReLU(64)
        self.layer1 = _stage(64, _WIDTHS[0], blocks[0])
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks[1])
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks[2])
        self.layer4 = _stage(_WIDTHS[2], _WIDTHS[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(_WIDTHS[3], eps=_EPS)
        self.dropout = nn.Dropout(p=dropout)
        self.flatten = nn.Flatten()
        rows, columns = (-(-side // 16) for side in input_size)
        self.fc = nn.Linear(_WIDTHS[3] * rows * columns, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim, eps=_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        x = self.prelu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.flatten(self.dropout(self.bn2(x)))
        embedding: Tensor = self.features(self.fc(x))
        return embedding


@architecture(name="iresnet18", paper=_PAPER, layout=_LAYOUT)
def iresnet18(embedding_dim: int = 512) -> IResNet:
    """Build the 18-layer iResNet for 112×112 input."""
    return IResNet((2, 2, 2, 2), embedding_dim)


@architecture(name="iresnet34", paper=_PAPER, layout=_LAYOUT)
def iresnet34(embedding_dim: int = 512) -> IResNet:
    """Build the 34-layer iResNet for 112×112 input."""
    return IResNet((3, 4, 6, 3), embedding_dim)


@architecture(name="iresnet50", paper=_PAPER, layout=_LAYOUT)
def iresnet50(embedding_dim: int = 512) -> IResNet:
    """Build the 50-layer iResNet for 112×112 input."""
    return IResNet((3, 4, 14, 3), embedding_dim)


@architecture(name="iresnet100", paper=_PAPER, layout=_LAYOUT)
def iresnet100(embedding_dim: int = 512) -> IResNet:
    """Build the 100-layer iResNet for 112×112 input."""
    return IResNet((3, 13, 30, 3), embedding_dim)


class _Block(nn.Module):
    """Pre-activation block: BN, conv, BN, PReLU, conv (strided), BN, plus the skip."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=_EPS)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs, eps=_EPS),
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.bn3(self.conv2(out))
        return out + (x if self.downsample is None else self.downsample(x))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = _Block(inputs, outputs, stride=2)
    return nn.Sequential(first, *(_Block(outputs, outputs, stride=1) for _ in range(blocks - 1)))
