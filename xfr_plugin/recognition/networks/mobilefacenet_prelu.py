"""MobileFaceNet with PReLU (Chen et al., CCBR 2018, arXiv 1804.07573), as the paper describes it.

Key layout of the state dicts published at github.com/TreB1eN/InsightFace_Pytorch (MIT).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from xfr_plugin.recognition.networks._architecture import architecture

__all__ = ["MobileFaceNetPReLU"]


@architecture(
    name="mobilefacenet_prelu",
    paper="Chen et al., CCBR 2018, arXiv 1804.07573",
    layout="TreB1eN/InsightFace_Pytorch (MIT)",
)
class MobileFaceNetPReLU(nn.Module):
    """MobileFaceNet: N×3×112×112 → N×`embedding_dim` (not normalised)."""

    def __init__(self, embedding_dim: int = 512) -> None:
        super().__init__()
        self.conv1 = _conv_bn(3, 64, kernel=3, stride=2, prelu=True)
        self.conv2_dw = _conv_bn(64, 64, kernel=3, groups=64, prelu=True)
        self.conv_23 = _Bottleneck(64, 64, hidden=128, stride=2)
        self.conv_3 = _Residual(64, repeats=4, hidden=128)
        self.conv_34 = _Bottleneck(64, 128, hidden=256, stride=2)
        self.conv_4 = _Residual(128, repeats=6, hidden=256)
        self.conv_45 = _Bottleneck(128, 128, hidden=512, stride=2)
        self.conv_5 = _Residual(128, repeats=2, hidden=256)
        self.conv_6_sep = _conv_bn(128, 512, kernel=1, prelu=True)
        self.conv_6_dw = _conv_bn(512, 512, kernel=7, groups=512, padding=0)
        self.conv_6_flatten = nn.Flatten()
        self.linear = nn.Linear(512, embedding_dim, bias=False)
        self.bn = nn.BatchNorm1d(embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        x = images
        for stage in self.children():
            x = stage(x)
        return x


def _conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
    prelu: bool = False,
) -> nn.Sequential:
    pad = (kernel - 1) // 2 if padding is None else padding
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False),
        bn=nn.BatchNorm2d(outputs),
    )
    if prelu:
        layers["prelu"] = nn.PReLU(outputs)
    return nn.Sequential(layers)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, hidden: int, stride: int = 1, skip: bool = False) -> None:
        super().__init__()
        self.has_skip = skip
        self.conv = _conv_bn(inputs, hidden, kernel=1, prelu=True)
        self.conv_dw = _conv_bn(hidden, hidden, kernel=3, stride=stride, groups=hidden, prelu=True)
        self.project = _conv_bn(hidden, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.conv_dw(self.conv(x)))
        return x + out if self.has_skip else out


class _Residual(nn.Module):
    def __init__(self, channels: int, repeats: int, hidden: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(_Bottleneck(channels, channels, hidden, skip=True) for _ in range(repeats))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out
