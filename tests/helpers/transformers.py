"""Small networks of the kinds that people bring, with random weights; those of libraries skip without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.lrp_layouts import LAYOUTS
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.networks import IResNet
from xfr_plugin.recognition.networks.compact_transformer import CompactTransformer

SIZE = (112, 112)


def timm_network(name: str, **settings: object) -> nn.Module:
    """A network of timm with 32 outputs."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    network: nn.Module = timm.create_model(name, num_classes=32, **settings)
    return network


def torchvision_models() -> Any:
    """Networks of torchvision, which comes with onnx2torch."""
    return pytest.importorskip("torchvision", reason="torchvision is not installed").models


def torchvision_vit() -> nn.Module:
    """A vision transformer of torchvision."""
    network: nn.Module = torchvision_models().VisionTransformer(112, 16, 2, 2, 48, 64, num_classes=32)
    return network


def torchvision_swin() -> nn.Module:
    """A Swin of torchvision."""
    swin = torchvision_models().swin_transformer.SwinTransformer
    network: nn.Module = swin([4, 4], 24, [1, 1], [1, 2], [7, 7], num_classes=32)
    return network


def torchvision_convnext() -> nn.Module:
    """A ConvNeXt of torchvision."""
    kind = torchvision_models().convnext
    stages = [kind.CNBlockConfig(8, 16, 1), kind.CNBlockConfig(16, 32, 1), kind.CNBlockConfig(32, None, 1)]
    network: nn.Module = kind.ConvNeXt(stages, num_classes=32)
    return network


def torchvision_resnet() -> nn.Module:
    """A ResNet of torchvision, of one block a stage."""
    kind = torchvision_models().resnet
    network: nn.Module = kind.ResNet(kind.BasicBlock, [1, 1, 1, 1], num_classes=32)
    return network


def huggingface_vit() -> nn.Module:
    """A vision transformer of HuggingFace."""
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    config = library.ViTConfig(
        image_size=112,
        patch_size=16,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    network: nn.Module = library.ViTModel(config)
    return network


def huggingface_swin() -> nn.Module:
    """A Swin of HuggingFace."""
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    config = library.SwinConfig(
        image_size=112, patch_size=4, embed_dim=24, depths=[1, 1], num_heads=[1, 2], window_size=7
    )
    network: nn.Module = library.SwinModel(config)
    return network


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "ViT (timm)": lambda: timm_network("vit_tiny_patch16_224", img_size=112, depth=2),
    "ViT, mean and registers (timm)": lambda: timm_network(
        "vit_tiny_patch16_224", img_size=112, depth=2, global_pool="avg", reg_tokens=4
    ),
    "ViT (HuggingFace)": huggingface_vit,
    "ViT (torchvision)": torchvision_vit,
    "Swin (timm)": lambda: timm_network(
        "swin_tiny_patch4_window7_224", img_size=112, depths=(1, 1, 1), embed_dim=24, num_heads=(1, 2, 4)
    ),
    "Swin (HuggingFace)": huggingface_swin,
    "Swin (torchvision)": torchvision_swin,
    "ConvNeXt (torchvision)": torchvision_convnext,
    "ResNet (torchvision)": torchvision_resnet,
    "iResNet (ours)": lambda: IResNet((1, 1, 1, 1), 32),
    "InceptionResnetV1 (in small)": LAYOUTS["inception_resnet"],
    "compact transformer (ours)": lambda: CompactTransformer(32, width=40, depth=1, heads=2),
}


def made(architecture: str) -> Recognizer:
    """A recognizer with a small network of the kind, with random weights."""
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture]().eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.08)
    recognizer = Recognizer(network, input_size=SIZE, threshold=0.1)
    recognizer.tested = True
    return recognizer


ATTENTIVE = tuple(name for name in ARCHITECTURES if "resnet" not in name.lower())
"""Those of attention or layer normalisation."""


def network_of(name: str) -> tuple[nn.Module, Tensor]:
    """A network that returns embeddings, and two images for it, as it takes them."""
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    return made(name).network, images


class Block(nn.Module):
    """A transformer's block, of attention and a layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """N×T×D to the same."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class SmallViT(nn.Module):
    """Patches of 16 pixels, a class token in front, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.Sequential(Block(16), Block(16))

    def forward(self, images: Tensor) -> Tensor:
        """N×3×64×48 to N×16."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        embedding: Tensor = self.blocks(torch.cat((self.token.expand(len(tokens), -1, -1), tokens), dim=1))[
            :, 0
        ]
        return embedding
