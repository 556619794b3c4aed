"""Augmentation of aligned faces: batched torch operations on the CPU or a GPU, reproducible by a generator.

Every function takes images N×3×H×W in [0, 1] and a CPU generator, and returns images of the same shape and
range. Each picks its own random share of the batch and leaves the rest untouched. To be fast they write into
the images they are given, except `augment`, which leaves its argument as it is.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from xfr_plugin.base.documents import Document

__all__ = ["AugmentConfig", "augment", "blur", "colour", "compress", "mirror", "move", "occlude", "uniform"]

_LUMA = (0.299, 0.587, 0.114)
_QUANTISATION = (  # the luminance table of the JPEG standard (ITU-T T.81, annex K)
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


class AugmentConfig(Document):
    """How often and how much images are changed.

    Attributes:
        mirror: probability.
        move: probability of a similarity transform.
        rotation: greatest angle in degrees.
        scale: greatest relative change of size.
        shift: greatest shift as a share of the side.
        colour: probability of a change of brightness, contrast, tint and saturation.
        colour_strength: greatest relative change.
        grey: probability of a grey image.
        blur: probability.
        compress: probability of JPEG-like block quantisation.
        occlude: probability of a filled rectangle.
        occlusion: greatest side of the rectangle as a share of the image's.
    """

    mirror: float = Field(default=0.5, ge=0, le=1)
    move: float = Field(default=0.8, ge=0, le=1)
    rotation: float = Field(default=4.0, ge=0, le=45)
    scale: float = Field(default=0.04, ge=0, lt=1)
    shift: float = Field(default=0.02, ge=0, lt=1)
    colour: float = Field(default=0.5, ge=0, le=1)
    colour_strength: float = Field(default=0.25, ge=0, lt=1)
    grey: float = Field(default=0.03, ge=0, le=1)
    blur: float = Field(default=0.15, ge=0, le=1)
    compress: float = Field(default=0.1, ge=0, le=1)
    occlude: float = Field(default=0.1, ge=0, le=1)
    occlusion: float = Field(default=0.4, gt=0, le=1)


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Apply everything in the order in which a camera would: pose, light, occlusion, blur, compression."""
    images = mirror(images.clone(), config.mirror, generator)
    images = move(images, config.move, config.rotation, config.scale, config.shift, generator)
    images = colour(images, config.colour, config.colour_strength, config.grey, generator)
    images = occlude(images, config.occlude, config.occlusion, generator)
    images = blur(images, config.blur, generator)
    return compress(images, config.compress, generator)


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Random numbers, as many as `count`, in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def mirror(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Swap left and right."""
    chosen = _choose(images, probability, generator)
    images[chosen] = images[chosen].flip(3)
    return images


def move(
    images: Tensor,
    probability: float,
    rotation: float,
    scale: float,
    shift: float,
    generator: torch.Generator,
) -> Tensor:
    """Rotate (degrees), scale and shift; black comes in at the borders, as in aligned crops."""
    chosen = _choose(images, probability, generator)
    count = len(chosen)
    angle = uniform(count, -rotation, rotation, generator) * (math.pi / 180)
    factor = torch.exp(uniform(count, -scale, scale, generator))
    offset = 2 * shift * uniform(2 * count, -1, 1, generator).view(2, count)
    if count == 0:
        return images
    aspect = images.shape[3] / images.shape[2]
    cosine, sine = factor * torch.cos(angle), factor * torch.sin(angle)
    rows = (cosine, -sine / aspect, offset[0], sine * aspect, cosine, offset[1])
    theta = torch.stack(rows, dim=1).view(count, 2, 3).to(images.device)
    grid = functional.affine_grid(theta, [count, *images.shape[1:]], align_corners=False)
    images[chosen] = functional.grid_sample(images[chosen], grid, mode="bilinear", align_corners=False)
    return images


def colour(
    images: Tensor, probability: float, strength: float, grey: float, generator: torch.Generator
) -> Tensor:
    """Change contrast, brightness, tint and saturation; make a share `grey` of the images grey."""
    count, _, height, width = images.shape
    chosen = torch.rand(count, generator=generator) < probability
    draws = strength * uniform(6 * count, -1, 1, generator).view(6, count) * chosen
    gain = torch.exp(draws[0, :, None] + 0.3 * draws[1:4].T)
    saturation = torch.exp(2 * draws[5]) * (torch.rand(count, generator=generator) >= grey)
    # one 3×3 matrix an image does it all: away from the luma by the saturation, then the gains
    luma = torch.tensor(_LUMA).expand(3, 3)
    matrix = luma + saturation[:, None, None] * (torch.eye(3) - luma)
    bias = 0.5 + 0.5 * draws[4, :, None] - 0.5 * gain
    matrix, bias = (gain[:, :, None] * matrix).to(images), bias.to(images)
    changed = torch.baddbmm(bias[:, :, None], matrix, images.reshape(count, 3, height * width))
    return changed.clamp_(0, 1).view(count, 3, height, width)


def occlude(images: Tensor, probability: float, largest: float, generator: torch.Generator) -> Tensor:
    """Fill a random rectangle, with sides up to the share `largest`, with a random colour."""
    height, width = images.shape[2:]
    chosen = _choose(images, probability, generator)
    draws = torch.rand(len(chosen), 4, generator=generator)
    fills = torch.rand(len(chosen), 3, 1, 1, generator=generator).to(images)
    for index, (y, x, tall, wide), fill in zip(chosen.tolist(), draws.tolist(), fills, strict=True):
        rows, columns = (0.1 + (max(largest, 0.1) - 0.1) * side for side in (tall, wide))
        top, left = (y - rows / 2) * height, (x - columns / 2) * width
        bottom, right = top + rows * height, left + columns * width
        images[index, :, max(0, int(top)) : int(bottom), max(0, int(left)) : int(right)] = fill
    return images


def blur(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Lower the resolution by a factor of 1.5 to 4, as of a small or soft photograph."""
    height, width = images.shape[2:]
    chosen = _choose(images, probability, generator)
    factor = float(uniform(1, 1.5, 4.0, generator))
    if len(chosen) == 0:
        return images
    size = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = functional.interpolate(images[chosen], size, mode="area")
    images[chosen] = functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    return images


def compress(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Quantise 8×8 blocks in the cosine domain, as JPEG does at qualities of about 10 to 50."""
    chosen = _choose(images, probability, generator)
    coarseness = uniform(len(chosen), 1.0, 5.0, generator).to(images)
    if len(chosen) == 0:
        return images
    height, width = images.shape[2:]
    padded = functional.pad(images[chosen], (0, -width % 8, 0, -height % 8), mode="replicate")
    count, channels, rows, columns = padded.shape
    blocks = padded.view(count, -1, 8, columns // 8, 8).transpose(2, 3)
    basis = _cosine_basis().to(images)
    step = torch.tensor(_QUANTISATION).to(images).T / 255 * coarseness[:, None, None, None, None]
    quantised = torch.round(_both_axes(blocks, basis) / step) * step
    restored = _both_axes(quantised, basis.T).transpose(2, 3).reshape(count, channels, rows, columns)
    images[chosen] = restored[:, :, :height, :width].clamp(0, 1)
    return images


def _both_axes(blocks: Tensor, basis: Tensor) -> Tensor:
    """Transform the last two axes; they are swapped in the result."""
    return ((blocks @ basis.T).transpose(-1, -2).contiguous()) @ basis.T


def _choose(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Indices of a random share of the batch."""
    draws = torch.rand(len(images), generator=generator)
    return (draws < probability).nonzero().flatten().to(images.device)


@cache
def _cosine_basis() -> Tensor:
    """The orthonormal 8×8 matrix of the discrete cosine transform."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    basis = torch.cos((2 * n + 1) * k * (math.pi / 16)) / 2
    basis[0] /= math.sqrt(2)
    return basis
