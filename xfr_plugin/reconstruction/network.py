"""The decoder network: from an embedding back to an aligned face.

Lighter than the transposed-convolution decoder of Otroshi Shahreza et al. (ICIP 2022): the embedding is
spread over a coarse grid, then refined by residual blocks while the grid is doubled twice by repeating cells
(transposed convolution leaves checkerboards in difference images); the last convolution paints 2×2 pixels a
cell at once (Shi et al., CVPR 2016, arXiv 1609.05158), which spares all work at the full size.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.errors import InputError

__all__ = ["DecoderNetwork", "to_input_size"]

_DOUBLINGS = 3


class DecoderNetwork(nn.Module):
    """Decoder: embeddings N×D → RGB faces N×3×H×W in [0, 1].

    Args:
        embedding_dim: length D of the embedding.
        output_size: height and width of the face in pixels.
        widths: channels at an eighth, a quarter and half of the output size.

    Raises:
        InputError: sizes or widths that make no sense.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        output_size: tuple[int, int] = (56, 56),
        widths: tuple[int, int, int] = (128, 64, 32),
    ) -> None:
        super().__init__()
        if embedding_dim < 1 or min(output_size) < 8 or len(widths) != _DOUBLINGS or min(widths) < 1:
            raise InputError(
                f"a decoder of {embedding_dim} channels to {output_size} pixels with widths {widths} cannot be "
                "built: it needs at least 8×8 pixels and three positive widths"
            )
        self.output_size = (int(output_size[0]), int(output_size[1]))
        rows, columns = (-(-side // 2**_DOUBLINGS) for side in self.output_size)
        self.spread = nn.Linear(embedding_dim, widths[0] * rows * columns)
        self.grid = nn.Unflatten(1, (widths[0], rows, columns))
        stages: list[nn.Module] = [_Residual(widths[0])]
        for inputs, outputs in pairwise(widths):
            stages += [_doubled(inputs, outputs), _Residual(outputs)]
        self.stages = nn.Sequential(*stages, nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.paint = nn.Conv2d(widths[-1], 3 * 4, kernel_size=3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.squash = nn.Sigmoid()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Decode normalised embeddings; see the class for shapes."""
        height, width = self.output_size
        images: Tensor = self.squash(
            self.shuffle(self.paint(self.stages(self.grid(self.spread(embeddings)))))
        )
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        return images[:, :, top : top + height, left : left + width]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.relu2(self.bn1(self.conv1(self.relu1(self.norm(x))))))
        return x + out


def _doubled(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            bn=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(),
            repeat=nn.Upsample(scale_factor=2, mode="nearest"),
            conv=nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        )
    )


def to_input_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring decoded images to the recognizer's input size (height, width), bilinearly."""
    if tuple(images.shape[2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", align_corners=False)
