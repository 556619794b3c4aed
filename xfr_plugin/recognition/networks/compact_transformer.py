"""A compact transformer for aligned faces: convolutions, attention over 49 tokens, a learned weight for each place.

The convolutions are those of the front of `compact`, whose trained weights they can take over ("early convolutions",
Xiao et al., NeurIPS 2021, arXiv 2106.14881). Pre-norm blocks of a vision transformer (Dosovitskiy et al., ICLR 2021,
arXiv 2010.11929) follow. Their tokens become the 7×7 map of features that MobileFaceNet (arXiv 1804.07573) ends in,
and its head makes the embedding, so that a trained one can teach the map and lend the head. There is no class token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.recognition.networks._architecture import architecture
from xfr_plugin.recognition.networks.compact import CompactFaceNet
from xfr_plugin.recognition.networks.mobilefacenet import GlobalDepthwise, conv_bn_act

__all__ = ["CompactTransformer"]

_MAP, _SIDE = 128, 7
_HEAD = 512


@architecture(
    name="compact_transformer",
    paper="ours, after Xiao et al., NeurIPS 2021, arXiv 2106.14881",
    layout="ours",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
class CompactTransformer(nn.Module):
    """Compact transformer: N×3×112×112 → N×`embedding_dim` (not normalised).

    Args:
        embedding_dim: length of the embedding.
        width: of a token.
        depth: blocks of attention.
        heads: of each attention.
    """

    def __init__(self, embedding_dim: int = 128, width: int = 160, depth: int = 5, heads: int = 5) -> None:
        super().__init__()
        self.front = nn.Sequential(*CompactFaceNet().front, _Tokens(width, depth, heads))
        self.conv2 = conv_bn_act(_MAP, _HEAD, kernel=1, activation=nn.ReLU)
        self.gdconv = GlobalDepthwise(_HEAD, kernel=_SIDE)
        self.conv3 = nn.Conv2d(_HEAD, embedding_dim, kernel_size=1)
        self.bn = nn.BatchNorm2d(embedding_dim)
        self.flatten = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images; see the class for shapes."""
        return self.head(self.front(images))

    def head(self, features: Tensor) -> Tensor:
        """The embedding of a map of features, N×128×7×7."""
        embedding: Tensor = self.flatten(self.bn(self.conv3(self.gdconv(self.conv2(features)))))
        return embedding


class _Tokens(nn.Module):
    """A map N×128×14×14 through the blocks of a transformer, to N×128×7×7."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(_MAP, width, kernel_size=2, stride=2)
        self.places = nn.Parameter(0.02 * torch.randn(1, _SIDE * _SIDE, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, _MAP)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        tokens = self.project(self.norm(self.blocks(tokens)))
        features: Tensor = tokens.transpose(1, 2).unflatten(2, (_SIDE, _SIDE))
        return features


class _Block(nn.Module):
    """Attention and two layers, each behind a norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.heads = (heads, width // heads)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(tokens).unflatten(2, (3, *self.heads)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts.unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out
