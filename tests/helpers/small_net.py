"""A small network in a module of its own, so that other processes can be sent it."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["SmallNet", "give_statistics"]


class SmallNet(nn.Module):
    """Two convolutions with BatchNorm, and a linear layer: N×3×24×20 → N×6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(8 * 12 * 10, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.relu2(self.bn2(self.conv2(x)))
        embedding: torch.Tensor = self.fc(x.flatten(1))
        return embedding


@torch.no_grad()
def give_statistics(network: nn.Module) -> None:
    """Give every BatchNorm of a network statistics, weights and biases that are not those of a new one."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
