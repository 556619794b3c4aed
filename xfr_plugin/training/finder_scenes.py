"""Pictures for the training of the face finder: several photographs in one, cut, turned, shrunk and lit anew.

What is no face comes from photographs that lie on their side or head: unlabelled faces in the background of upright
ones are never taught as non-faces. What lies beside an upright face counts as nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from xfr_plugin.faces.finder_network import LEAST_EYES, MOST_EYES, STRIDE
from xfr_plugin.training.augment import blur, compress, occlude, uniform

__all__ = ["Layers", "Scenes", "draw_layers", "draw_scenes", "relit", "softened"]

_OTHER_EYES = (3.0, 20.0)
_BACKGROUND_EYES = (8.0, 40.0)
_NOTHING, _MASK, _GLASSES = 0, 1, 2
_SHARP = 1.5
"""Photographs that are shrunk by more, or by twice as much, are blurred first."""


@dataclass(frozen=True)
class Layers:
    """Photographs laid upon one another, B pictures of K layers, the first at the bottom.

    Attributes:
        photos: their numbers, B×K.
        centres: of the landmarks in the picture, in pixels, B×K×2.
        eyes: distances of the eyes in the picture, in pixels, B×K.
        angles: by which the faces are turned, clockwise, in radians, B×K.
        flips: 1, or −1 for mirrored photographs, B×K.
        upright: whether the face is taught as one, B×K.
        windows: what is seen of a photograph: left, upper, right and lower end in eye distances from the landmarks'
            mean, along the face, B×K×4.
        covers: 0 for none, 1 a mask, 2 dark glasses; B×K.
        shades: of the covers, B×K.
    """

    photos: Tensor
    centres: Tensor
    eyes: Tensor
    angles: Tensor
    flips: Tensor
    upright: Tensor
    windows: Tensor
    covers: Tensor
    shades: Tensor


@dataclass(frozen=True)
class Scenes:
    """Pictures and what is to be found in them; a cell is `STRIDE` pixels.

    Attributes:
        pictures: grey, B×1×S×S, 0…1.
        heat: 1 in cells where a face is, falling around, B×h×w.
        ignored: cells in which nothing is taught, B×h×w.
        faces: of the cells to learn places from: picture, row, column, N×3.
        centres: of their faces, in pixels, N×2.
        eyes: in pixels, N.
        angles: in radians, N.
    """

    pictures: Tensor
    heat: Tensor
    ignored: Tensor
    faces: Tensor
    centres: Tensor
    eyes: Tensor
    angles: Tensor


def draw_layers(
    count: int, layers: int, photos: int, side: int, rotation: float, generator: torch.Generator
) -> Layers:
    """Choose photographs and places at random; the lowest layer, without a face, fills the picture."""
    shape, number = (count, layers), count * layers

    def draw(low: float, high: float) -> Tensor:
        return uniform(number, low, high, generator).reshape(shape)

    def often(share: float) -> Tensor:
        return draw(0, 1) < share

    upright = often(0.7)
    upright[:, 0] = False
    eyes = draw(math.log(LEAST_EYES * 0.8), math.log(MOST_EYES * 1.2)).exp()
    eyes = torch.where(often(0.8), eyes, draw(*map(math.log, _OTHER_EYES)).exp())
    eyes[:, 0] = draw(*map(math.log, _BACKGROUND_EYES)).exp()[:, 0]
    angles = math.radians(rotation) * draw(-1, 1) * torch.where(often(0.6), 1.0, 0.3)
    angles = torch.where(upright, angles, draw(math.radians(100), math.radians(260)))
    # a window ends near the face on some sides, so that faces are cut and lie close to others
    ends = torch.stack([draw(math.log(1.0), math.log(4.0)).exp() for _ in range(4)], dim=2)
    ends = torch.where(often(0.6)[:, :, None], ends, 9.0)
    covers = torch.where(often(0.2), torch.where(often(0.6), _MASK, _GLASSES), _NOTHING)
    return Layers(
        photos=torch.randint(photos, shape, generator=generator),
        centres=torch.stack([draw(-6, side + 6), draw(-6, side + 6)], dim=2),
        eyes=eyes,
        angles=angles,
        flips=torch.where(often(0.5), 1.0, -1.0),
        upright=upright,
        windows=ends * torch.tensor([-1.0, -1.0, 1.0, 1.0]),
        covers=covers,
        shades=draw(0, 1),
    )


def softened(images: Tensor) -> Tensor:
    """Photographs (N×1×H×W, uint8) as they are, and blurred for copies of a half and of a fourth, N×3×H×W."""
    blurred = [images]
    for factor in (2, 4):
        small = avg_pool2d(images.float(), factor, ceil_mode=True, count_include_pad=False)
        large = interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False)
        blurred.append(large.round().to(torch.uint8))
    return torch.cat(blurred, dim=1)


def draw_scenes(images: Tensor, landmarks: Tensor, layers: Layers, grounds: Tensor, side: int) -> Scenes:
    """Draw layers of photographs over backgrounds.

    Args:
        images: photographs, see `softened`.
        landmarks: of their faces, N×5×2.
        layers: what is drawn where.
        grounds: B×1×S×S, 0…1; NaN where the lowest layer shows.
        side: S, of the pictures.
    """
    pixels = _along_faces(layers, torch.arange(side, dtype=torch.float32))
    drawn, seen = _sampled(images, landmarks, layers, pixels)
    drawn = _covered(drawn, pixels, layers)
    shown, top = torch.where(grounds.isnan(), drawn[:, :1], grounds), torch.zeros_like(grounds[:, 0])
    for layer in range(1, drawn.shape[1]):
        shown = torch.where(seen[:, layer, None], drawn[:, layer, None], shown)
        top = torch.where(seen[:, layer], float(layer), top)
    return _labelled(shown, top, pixels, layers)


def _along_faces(layers: Layers, places: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (of all rows and columns `places`) in eye distances from each face's middle, along it; x, y, B×K×h×w."""
    x = places[None, None, None, :] - layers.centres[:, :, 0, None, None]
    y = places[None, None, :, None] - layers.centres[:, :, 1, None, None]
    cos = (layers.angles.cos() / layers.eyes)[:, :, None, None]
    sin = (layers.angles.sin() / layers.eyes)[:, :, None, None]
    return cos * x + sin * y, cos * y - sin * x


def _sampled(
    images: Tensor, landmarks: Tensor, layers: Layers, pixels: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Grey values of each layer (B×K×S×S, 0…1), and where it is seen if nothing lies on it."""
    chosen = layers.photos.flatten()
    points = landmarks[chosen]
    middles, across = points.mean(1), points[:, 1] - points[:, 0]
    eyes, flips = across.norm(dim=1), layers.flips.flatten()
    right, down = across * flips[:, None], torch.stack([-across[:, 1], across[:, 0]], dim=1)
    x, y = (values.flatten(0, 1) for values in pixels)
    grid = []
    for axis, size in enumerate((images.shape[3], images.shape[2])):
        start, along_x, along_y = (
            (2 * values[:, axis] / size)[:, None, None] for values in (middles + 0.5, right, down)
        )
        grid.append(along_x * x + along_y * y + (start - 1))
    shrunk = eyes / layers.eyes.flatten()
    softness = (shrunk > _SHARP).long() + (shrunk > 2 * _SHARP).long()
    photos = images[chosen, softness][:, None].float() / 255
    drawn = grid_sample(photos, torch.stack(grid, dim=3), padding_mode="border", align_corners=False)
    left, upper, right, lower = layers.windows.flatten(0, 1)[:, :, None, None].unbind(1)
    seen = (x >= left) & (x <= right) & (y >= upper) & (y <= lower)
    seen &= (grid[0].abs() <= 1) & (grid[1].abs() <= 1)
    shape = pixels[0].shape
    return drawn.reshape(shape), seen.reshape(shape)


def _covered(drawn: Tensor, pixels: tuple[Tensor, Tensor], layers: Layers) -> Tensor:
    """Lay masks over mouths, and glasses over eyes."""
    chosen = layers.covers == _MASK
    x, y, shade = (*(values[chosen] for values in pixels), layers.shades[chosen][:, None, None])
    mask = ((x / 1.15).square() + ((y - 0.5) / 0.85).square() < 1) & (y > -0.1)
    drawn[chosen] = torch.where(mask, 0.2 + 0.8 * shade + 0.05 * y, drawn[chosen])
    chosen = layers.covers == _GLASSES
    x, y, shade = (*(values[chosen] for values in pixels), layers.shades[chosen][:, None, None])
    glasses = ((x.abs() - 0.5) / 0.42).square() + ((y + 0.58) / 0.3).square() < 1
    drawn[chosen] = torch.where(glasses, 0.3 * shade, drawn[chosen])
    return drawn


def _labelled(shown: Tensor, top: Tensor, pixels: tuple[Tensor, Tensor], layers: Layers) -> Scenes:
    side, (x, y) = shown.shape[2], pixels
    uppermost = top[:, None] == torch.arange(x.shape[1])[:, None, None]
    on_face = (x.abs() < 1) & (y.abs() < 1.1) & uppermost
    visible = on_face.sum((2, 3)) / (4.4 * layers.eyes.square())
    fits = (layers.eyes >= LEAST_EYES) & (layers.eyes <= MOST_EYES)
    inside = ((layers.centres > -0.5) & (layers.centres < side - 0.5)).all(2)
    taught = layers.upright & fits & (visible > 0.7) & inside
    unsure = layers.upright & ~taught & ((visible > 0.2) | ~inside)
    x, y = (values[:, :, ::STRIDE, ::STRIDE] for values in pixels)
    distance = torch.hypot(x, y)
    near = torch.where(taught[:, :, None, None], distance, 9.0).amin(1)
    beside = (
        layers.upright[:, :, None, None] & uppermost[:, :, ::STRIDE, ::STRIDE] & (x.abs() > 1.8) & (y < 1.5)
    )
    ignored = beside | ((distance < 1.2) & unsure[:, :, None, None])
    index = (layers.centres / STRIDE).round().long().clamp(0, x.shape[2] - 1)
    picture, layer = taught.nonzero().unbind(1)
    column, row = index[picture, layer].unbind(1)
    heat = (-0.5 * (near / 0.4).square()).exp()
    heat[picture, row, column] = 1.0
    return Scenes(
        pictures=shown,
        heat=heat,
        ignored=ignored.any(1) & (near > 0.6),
        faces=torch.stack([picture, row, column], dim=1),
        centres=layers.centres[picture, layer],
        eyes=layers.eyes[picture, layer],
        angles=layers.angles[picture, layer],
    )


def relit(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Change light, sharpness and compression of grey pictures (B×1×S×S, 0…1), cover parts, add noise, darken."""
    count = len(pictures)

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, low, high, generator).to(pictures)[:, None, None, None]

    ramp = torch.linspace(-1, 1, pictures.shape[2], device=pictures.device)
    light = (draw(-0.5, 0.5) * ramp + draw(-0.5, 0.5) * ramp[:, None]).exp()
    pictures = (pictures.clamp(min=1e-3) ** draw(-0.5, 0.5).exp() * light).clamp(0, 1)
    pictures = occlude(pictures.repeat(1, 3, 1, 1), 0.2, 0.2, generator)[:, :1]
    pictures = blur(pictures, 0.05, generator)
    pictures = compress(pictures, 0.1, generator)
    noise = torch.randn(pictures.shape, generator=generator).to(pictures)
    pictures = (pictures + noise * draw(0, 0.05) * (draw(0, 1) < 0.4)).clamp(0, 1)
    dark = torch.where(draw(0, 1) < 0.2, draw(math.log(0.03), 0.0).exp(), 1.0)
    return (pictures * dark * 255).round() / 255
