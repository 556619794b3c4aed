"""The aligner's network: a crop around a face gives five landmarks and a face score, in two steps.

The coarse step sees the face box. Its landmarks place an upright crop of fixed scale, in which the fine step
looks again, as in cascaded regression (Sun et al., CVPR 2013). Both steps read the landmarks off heat maps by
their centre of mass (Sun et al., *Integral human pose regression*, ECCV 2018), which keeps the networks small
and lets them learn from few photos.

A *frame* places a crop in an image: a 2×3 matrix from crop coordinates (x and y from −1 to 1, edge to edge)
to pixels. Frames are similarity transforms, mirrored or not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate

from xfr_plugin.faces.alignment import ARCFACE_TEMPLATE

__all__ = [
    "AlignerNetwork",
    "Located",
    "Residual",
    "box_frames",
    "convolution",
    "from_crop",
    "sample_crops",
    "standardised",
    "to_crop",
]

CROP_SIZE = 64
"""Side of the crops that both steps see, in pixels."""

BOX_MARGIN = 1.4
"""Side of the coarse crop in sides of the face box."""

_FINE_CENTRE = (56.0, 71.0)
_FINE_HALF_SIDE = 44.0
# bounds of the fine crop's side in sides of the coarse one: usual is .7; a non-face could collapse to a point
_FINE_SCALES = (0.35, 1.4)


class Located(NamedTuple):
    """Landmarks in pixels, B×5×2, and face scores (logits), B, of one step."""

    points: Tensor
    logits: Tensor


class AlignerNetwork(nn.Module):
    """Coarse and fine step.

    Args:
        width: channels of the highest resolution; the number of parameters grows with its square.

    Attributes:
        label_offset: by how much the given landmarks lie beside the places that a network trained on mirrored
            faces can learn, along the line of the eyes and across it, in eye distances: labels of detectors are often
            shifted to one side.
            The crops that recognizers were trained on are shifted alike, so the landmarks must be, too.
    """

    mean_shape: Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        self.coarse = _HeatmapNetwork(width)
        self.fine = _HeatmapNetwork(width)
        self.label_offset = nn.Parameter(torch.zeros(2))
        shape = (torch.from_numpy(ARCFACE_TEMPLATE).float() - torch.tensor(_FINE_CENTRE)) / _FINE_HALF_SIDE
        self.register_buffer("mean_shape", shape, persistent=False)

    def forward(self, images: Tensor, frames: Tensor) -> Located:
        """Locate one face an image.

        Args:
            images: grey, B×1×H×W, any linear scale.
            frames: of the coarse crops, B×2×3, see `box_frames`.

        Returns:
            The landmarks of the fine step, and the mean score of both steps.
        """
        coarse = self.locate(self.coarse, sample_crops(images, frames), frames)
        fine_frames = self.fine_frames(coarse.points, frames)
        fine = self.locate(self.fine, sample_crops(images, fine_frames), fine_frames)
        return Located(fine.points, (coarse.logits + fine.logits) / 2)

    def locate(self, step: nn.Module, crops: Tensor, frames: Tensor) -> Located:
        """Run one step on its crops (B×1×64×64) and place its landmarks in the image."""
        points, logits = step(standardised(crops))
        placed = from_crop(points, frames)
        # from the eye on the image's left to the other, and across: labels of a turned face are shifted along it
        along = (placed[:, 1] - placed[:, 0]).detach() * frames[:, :, :2].det().sign()[:, None]
        across = torch.stack([-along[:, 1], along[:, 0]], dim=1)
        shift = along * self.label_offset[0] + across * self.label_offset[1]
        return Located(placed + shift[:, None], logits)

    def fine_frames(self, points: Tensor, frames: Tensor) -> Tensor:
        """Frames of the fine step, in which `points` (B×5×2) lie on the mean shape.

        `frames` says which crops are mirrored.
        """
        local = torch.view_as_complex(to_crop(points, frames).contiguous())
        shape = torch.view_as_complex(self.mean_shape)
        centred = shape - shape.mean()
        centre = local.mean(1)
        # least-squares similarity: a complex number turns and scales
        turn = ((local - centre[:, None]) * centred.conj()).sum(1) / centred.abs().square().sum()
        size = turn.abs().clamp(min=1e-6)
        turn = turn * (size.clamp(*_FINE_SCALES) / size)
        shift = centre - turn * shape.mean()
        linear = torch.stack([turn.real, -turn.imag, turn.imag, turn.real], dim=1).reshape(-1, 2, 2)
        offset = torch.view_as_real(shift)
        return torch.cat(
            [frames[:, :, :2] @ linear, from_crop(offset[:, None], frames).transpose(1, 2)], dim=2
        )


class _HeatmapNetwork(nn.Module):
    """B×1×64×64 → points B×5×2 in crop coordinates, and face logits B."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(1, width // 2, stride=2), convolution(width // 2, width, stride=2)
        )
        self.high = Residual(width)
        self.middle = nn.Sequential(convolution(width, 2 * width, stride=2), Residual(2 * width))
        self.low = nn.Sequential(convolution(2 * width, 3 * width, stride=2), Residual(3 * width))
        self.from_high = nn.Conv2d(width, width, 1)
        self.from_middle = nn.Conv2d(2 * width, width, 1)
        self.from_low = nn.Conv2d(3 * width, width, 1)
        self.heatmaps = nn.Sequential(Residual(width), nn.Conv2d(width, 5, 1))
        self.score = nn.Linear(3 * width, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        high = self.high(self.stem(crops))
        middle = self.middle(high)
        low = self.low(middle)
        up = _enlarged(self.from_low(low), middle) + self.from_middle(middle)
        up = _enlarged(up, high) + self.from_high(high)
        return _centre_of_mass(self.heatmaps(up)), self.score(low.mean((2, 3))).squeeze(1)


class Residual(nn.Module):
    """Two 3×3 convolutions whose result is added to what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, B×C×H×W."""
        out: Tensor = self.relu(x + self.body(x))
        return out


def box_frames(centres: Tensor, sizes: Tensor, angles: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Frames of the coarse crops of face boxes.

    Args:
        centres: of the boxes in pixels, B×2.
        sizes: sides of the boxes in pixels, B.
        angles: by which the faces are turned, clockwise on the screen, in radians, B.
        mirrored: boolean, B; none, if left out.
    """
    half = sizes * (BOX_MARGIN / 2)
    cos, sin = half * angles.cos(), half * angles.sin()
    flip = torch.ones_like(half) if mirrored is None else 1 - 2 * mirrored.to(half)
    rows = torch.stack([flip * cos, -sin, centres[:, 0], flip * sin, cos, centres[:, 1]], dim=1)
    return rows.reshape(-1, 2, 3)


def from_crop(points: Tensor, frames: Tensor) -> Tensor:
    """Map points (B×K×2) from crop coordinates to pixels."""
    return points @ frames[:, :, :2].transpose(1, 2) + frames[:, None, :, 2]


def to_crop(points: Tensor, frames: Tensor) -> Tensor:
    """Map points (B×K×2) from pixels to crop coordinates."""
    linear = frames[:, :, :2]
    # of a similarity transform, mirrored or not, the transpose is the inverse but for the scale
    return (points - frames[:, None, :, 2]) @ linear / linear.det().abs()[:, None, None]


def sample_crops(images: Tensor, frames: Tensor, size: int = CROP_SIZE) -> Tensor:
    """Cut crops (B×C×size×size) out of images (B×C×H×W); beyond its edges an image's border goes on."""
    height, width = images.shape[2:]
    scale = torch.tensor([2 / width, 2 / height], device=frames.device)
    shift = torch.tensor([1 / width - 1, 1 / height - 1], device=frames.device)
    normalised = frames * scale[:, None]
    normalised = torch.cat([normalised[:, :, :2], normalised[:, :, 2:] + shift[:, None]], dim=2)
    grid = affine_grid(normalised, [len(frames), images.shape[1], size, size], align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def standardised(crops: Tensor) -> Tensor:
    """Take brightness and contrast out of each crop."""
    mean = crops.mean((1, 2, 3), keepdim=True)
    spread = crops.std((1, 2, 3), keepdim=True)
    return (crops - mean) / (spread + 1e-3 + 0.02 * mean.abs())


def _centre_of_mass(maps: Tensor) -> Tensor:
    """Expected position on each heat map (B×K×H×W) after a softmax, in crop coordinates, B×K×2."""
    height, width = maps.shape[2:]
    weights = maps.flatten(2).softmax(2).reshape(maps.shape)
    x = (torch.arange(width, device=maps.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=maps.device) * 2 + 1) / height - 1
    return torch.stack([(weights.sum(2) * x).sum(2), (weights.sum(3) * y).sum(2)], dim=2)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, size=like.shape[2:], mode="nearest")


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3×3 convolution, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
