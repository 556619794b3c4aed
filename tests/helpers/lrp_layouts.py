"""Small networks in the published layouts of face recognizers, with functions where the originals use functions.

Written from the papers: iResNet (arXiv 2004.04989), its squeeze-and-excitation form (arXiv 1709.01507), MobileFaceNet
(arXiv 1804.07573), ResNet (arXiv 1512.03385), Inception-ResNet v1 with scaled residuals (arXiv 1602.07261).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck

from xfr_plugin.recognition.networks.compact import _Residual
from xfr_plugin.recognition.networks.mobilefacenet import GlobalDepthwise, InvertedResidual, conv_bn_act
from xfr_plugin.recognition.networks.mobilefacenet_prelu import _Bottleneck, _conv_bn

SIZE = (15, 13)


class Block(nn.Module):
    """iResNet's block: BN before a zero-padded convolution, PReLU, BN that closes the branch, optional gate."""

    def __init__(self, inputs: int, outputs: int, stride: int, gated: bool) -> None:
        super().__init__()
        layers = [nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.PReLU(outputs)]
        layers += [nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.residual = nn.Sequential(*layers, *([Gate(outputs)] if gated else []))
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        return self.residual(x) + shortcut


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(2, channels, 1, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        signal = x
        x = self.fc2(self.relu(self.fc1(self.squeeze(x))))
        return signal * self.sigmoid(x)


class IRNet(nn.Module):
    """iResNet or IR-SE: stem, blocks, and BN–dropout–flatten–FC–BN1d; BN1d without affine parameters if asked."""

    def __init__(self, gated: bool, affine: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.PReLU(4))
        self.body = nn.Sequential(Block(4, 4, 2, gated), Block(4, 6, 2, gated), Block(6, 6, 1, gated))
        self.head = nn.Sequential(
            *(nn.BatchNorm2d(6), nn.Dropout(0.4), nn.Flatten(), nn.Linear(6 * 4 * 4, 8)),
            nn.BatchNorm1d(8, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


class Normalised(nn.Module):
    """A network with the L2 normalisation in its forward function, by division."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        embedding = self.network((x - 0.1) / 0.5)
        norm = torch.norm(embedding, 2, 1, True)
        return torch.div(embedding, norm)


class MobileReLU6(nn.Module):
    """MobileFaceNet's parts with ReLU6, down to the global depthwise convolution; flattened by a method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_act(3, 4, kernel=3, stride=2)
        self.blocks = nn.Sequential(InvertedResidual(4, 4, 1, 2), InvertedResidual(4, 6, 2, 2))
        self.expand = conv_bn_act(6, 8, kernel=1)
        self.gdconv = GlobalDepthwise(8, kernel=4)
        self.linear = nn.Conv2d(8, 5, 1)
        self.bn = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gdconv(self.expand(self.blocks(self.stem(x))))
        return self.bn(self.linear(x)).view(x.size(0), -1)


class MobilePReLU(nn.Module):
    """MobileFaceNet's parts with PReLU, and BN1d at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_bn(3, 4, kernel=3, stride=2, prelu=True)
        self.blocks = nn.Sequential(_Bottleneck(4, 4, 8, skip=True), _Bottleneck(4, 6, 8, stride=2))
        self.gdconv = _conv_bn(6, 6, kernel=4, groups=6, padding=0)
        self.linear = nn.Linear(6, 5, bias=False)
        self.bn = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gdconv(self.blocks(self.stem(x)))
        return self.bn(self.linear(x.reshape(x.shape[0], -1)))


class Scaled(nn.Module):
    """Inception-ResNet's block: branches, concatenation, 1×1 convolution with bias, a scaled residual."""

    def __init__(self, scale: float, activated: bool) -> None:
        super().__init__()
        self.scale, self.activated = scale, activated
        self.branch0 = conv_bn_act(6, 3, 1, activation=nn.ReLU)
        self.branch1 = nn.Sequential(conv_bn_act(6, 3, 1, activation=nn.ReLU), conv_bn_act(3, 3, 3))
        self.conv = nn.Conv2d(6, 6, 1)
        if activated:
            self.relu = nn.ReLU(inplace=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(torch.cat((self.branch0(x), self.branch1(x)), 1))
        out = out * self.scale + x
        return self.relu(out) if self.activated else out


class Inception(nn.Module):
    """FaceNet's InceptionResnetV1 in small: scaled residuals, pooling by functions, FC, BN1d, normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_act(3, 6, 3, 2, activation=nn.ReLU)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.repeat = nn.Sequential(Scaled(0.17, True), Scaled(0.1, True))
        self.last = Scaled(1.0, False)
        self.dropout = nn.Dropout(0.6)
        self.linear = nn.Linear(6, 5, bias=False)
        self.bn = nn.BatchNorm1d(5, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.repeat(self.pool(self.stem(x))))
        x = self.dropout(functional.adaptive_avg_pool2d(functional.relu(x), 1))
        x = self.bn(self.linear(x.view(x.shape[0], -1)))
        return functional.normalize(x, p=2, dim=1)


class Compact(nn.Module):
    """The residual blocks of our compact network, pooled by a method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_act(3, 4, 3, 2, activation=nn.ReLU)
        self.block = _Residual(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x)).mean((2, 3))


def _resnet(block: type[BasicBlock | Bottleneck], planes: int) -> nn.Module:
    """torchvision's own blocks, which use one ReLU module several times."""
    shortcut = nn.Sequential(nn.Conv2d(8, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
    stem = conv_bn_act(3, 8, 3, 2, activation=nn.ReLU)
    blocks = nn.Sequential(block(8, planes), block(8, planes, stride=2, downsample=shortcut))
    return nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


LAYOUTS: dict[str, Callable[[], nn.Module]] = {
    "iresnet": lambda: IRNet(gated=False, affine=False),
    "ir_se": lambda: IRNet(gated=True, affine=True),
    "mobilefacenet_relu6": MobileReLU6,
    "mobilefacenet_prelu": MobilePReLU,
    "normalised_in_forward": lambda: Normalised(MobilePReLU()),
    "compact": Compact,
    "inception_resnet": Inception,
    "resnet_basic": lambda: _resnet(BasicBlock, 8),
    "resnet_bottleneck": lambda: _resnet(Bottleneck, 2),
}


def build(name: str) -> nn.Module:
    """Build a layout in float64 with weights and statistics that make every part matter."""
    torch.manual_seed(7)
    return randomised(LAYOUTS[name]())


def randomised(network: nn.Module) -> nn.Module:
    """Put a network into float64 and evaluation mode, and draw what a fresh one has at its neutral value."""
    network = network.double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.3)
            elif isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.2, 0.5)
    return network


def images_for(network: nn.Module) -> Tensor:
    """Two images that a layout accepts."""
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
