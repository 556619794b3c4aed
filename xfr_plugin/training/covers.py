"""Random shapes of random fillings, laid on faces so that a training sees faces of which something is covered.

They are meant to be like nothing in particular: what judges lay on faces is not among them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["covered"]

_SIZES = (0.08, 0.4)
_SIDES = (3, 8)
_SOFTEST = 0.03


def covered(face: Tensor, generator: torch.Generator) -> Tensor:
    """A face C×H×W in [0, 1] with one or two random shapes on it."""
    for _ in range(1 + int(_uniform(generator) < 0.3)):
        mask = _shape(face.shape[1], face.shape[2], generator).to(face)
        face = face + mask * (_filling(face, generator) - face)
    return face.clamp(0, 1)


def _shape(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A band, a convex polygon or an ellipse, H×W in [0, 1], with a sharp or a soft edge."""
    centre = _uniform(generator, 0.15, 0.85), _uniform(generator, 0.15, 0.85)
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height - centre[0],
        (torch.arange(width) + 0.5) / width - centre[1],
        indexing="ij",
    )
    turn, size = _uniform(generator, 0, math.pi), _uniform(generator, *_SIZES)
    kind = int(_uniform(generator, 0, 3))
    if kind == 0:
        outside = _beyond_ellipse(x, y, turn, size, _uniform(generator, 0.4, 1))
    elif kind == 1:
        outside = _beyond_edges(x, y, [turn, turn + math.pi], size, (0.2, 0.5), generator)
    else:
        turns = (turn + _steps(int(_uniform(generator, *_SIDES)), generator)).tolist()
        outside = _beyond_edges(x, y, turns, size, (0.5, 1), generator)
    soft = max(1 / height, _uniform(generator, -_SOFTEST, _SOFTEST))
    return (0.5 - outside / (2 * soft)).clamp(0, 1)


def _beyond_ellipse(x: Tensor, y: Tensor, turn: float, size: float, flat: float) -> Tensor:
    """About how far places lie beyond an ellipse; less than 0 within."""
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return ((u / size) ** 2 + (v / (flat * size)) ** 2).sqrt() * size - size


def _beyond_edges(
    x: Tensor,
    y: Tensor,
    turns: list[float],
    size: float,
    far: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """How far places lie beyond the edges that face these directions: two make a band, more a polygon."""
    reach = [size * _uniform(generator, *far) for _ in turns]
    edges = [x * math.cos(turn) + y * math.sin(turn) - at for turn, at in zip(turns, reach, strict=True)]
    return torch.stack(edges).amax(dim=0)


def _steps(count: int, generator: torch.Generator) -> Tensor:
    """So many directions around a centre, no two of them alike."""
    return (torch.arange(count) + 0.7 * torch.rand(count, generator=generator)) * (2 * math.pi / count)


def _filling(face: Tensor, generator: torch.Generator) -> Tensor:
    """A colour, noise, waves of two colours, or the face blurred, C×H×W."""
    kind, (channels, height, width) = int(_uniform(generator, 0, 4)), face.shape
    one, other = torch.rand(2, channels, 1, 1, generator=generator).to(face).unbind()
    if kind == 0:
        return one.expand_as(face)
    if kind == 1:
        grain = 2 ** int(_uniform(generator, 0, 4))
        rows, columns = height // grain + 1, width // grain + 1
        return _enlarged(torch.rand(channels, rows, columns, generator=generator).to(face), height, width)
    if kind == 2:
        turn, count = _uniform(generator, 0, math.pi), _uniform(generator, 3, 30)
        y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
        place = x * math.cos(turn) + y * math.sin(turn)
        wave = (0.5 + 0.5 * torch.sin(2 * math.pi * count * place)).to(face)
        return wave * one + (1 - wave) * other
    coarse = functional.adaptive_avg_pool2d(face, int(_uniform(generator, 4, 20)))
    return _enlarged(coarse, height, width)


def _enlarged(image: Tensor, height: int, width: int) -> Tensor:
    larger: Tensor = functional.interpolate(image[None], (height, width), mode="bilinear")
    return larger[0]


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
