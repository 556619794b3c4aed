"""Occluders: sixteen things that hide a part of a face, each of random size, place and colour.

Drawn, not photographed: nobody's face is in them, and every face can have every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from xfr_plugin.errors import UnknownNameError
from xfr_plugin.evaluation.occluders.frame import Frame, Plane

__all__ = ["OCCLUDERS", "Occlusion", "occlude"]

Image = NDArray[np.floating]
"""H×W×3 in [0, 1]."""

Layer = tuple[Plane, NDArray[np.float64]]
"""How much each pixel is covered, H×W in [0, 1], and by what, H×W×3."""

Drawer = Callable[[Frame, Image, np.random.Generator], Layer]


@dataclass(frozen=True)
class Occlusion:
    """A face with something over it.

    Attributes:
        image: H×W×3 in [0, 1].
        covered: H×W, the pixels that are hidden for more than half.
    """

    image: NDArray[np.float32]
    covered: NDArray[np.bool_]


def occlude(image: Image, landmarks: NDArray[np.floating], kind: str, rng: np.random.Generator) -> Occlusion:
    """Draw an occluder over a face, aligned or in a photograph.

    Args:
        image: H×W×3 in [0, 1].
        landmarks: see `Frame.of`.
        kind: a key of `OCCLUDERS`.
        rng: draws size, place and colour.

    Raises:
        UnknownNameError: no such kind.
        InputError: see `Frame.of`.
    """
    if kind not in OCCLUDERS:
        raise UnknownNameError.of("occluder", kind, OCCLUDERS)
    frame = Frame.of(landmarks, (image.shape[0], image.shape[1]))
    cover, paint = OCCLUDERS[kind](frame, image, rng)
    mixed = image + cover[..., None] * (np.clip(paint, 0, 1) - image)
    return Occlusion(np.clip(mixed, 0, 1).astype(np.float32), np.asarray(cover > 0.5))


def _glasses(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    width, height = rng.uniform(0.32, 0.43), rng.uniform(0.22, 0.34)
    rim, power, drop = rng.uniform(0.03, 0.075), rng.uniform(2, 5), rng.uniform(0.0, 0.08)
    depths = [_wires(frame, width, drop, rim)]
    for side in (-0.5, 0.5):
        lens = frame.ellipse(side, drop, width, height, power)
        depths.append(np.minimum(lens, rim - lens))
    return frame.soft(np.max(depths, axis=0)), _flat(image, _dark(rng))


def _sunglasses(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    width, height = rng.uniform(0.36, 0.46), rng.uniform(0.24, 0.36)
    power, drop = rng.uniform(2, 5), rng.uniform(0.0, 0.1)
    lenses = [frame.ellipse(side, drop, width, height, power) for side in (-0.5, 0.5)]
    depth = np.max([*lenses, _wires(frame, width, drop, rng.uniform(0.03, 0.06))], axis=0)
    shine = 0.12 * np.clip(0.5 - (frame.v - drop) / height, 0, 1)
    return rng.uniform(0.85, 1) * frame.soft(depth), _flat(image, _dark(rng)) + shine[..., None]


def _surgical_mask(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    top, width = rng.uniform(0.25, 0.55), rng.uniform(0.85, 1.05)
    middle, height = (top + 1.75) / 2, (1.75 - top) / 2
    depth = frame.ellipse(rng.uniform(-0.05, 0.05), middle, width, height, 3.5)
    ears = [
        frame.stroke([(side * 0.8, v), (side * 1.5, v - 0.3)], 0.025)
        for side in (-1, 1)
        for v in (top + 0.2, 1.3)
    ]
    pleats = 0.05 * np.cos(2 * np.pi * (frame.v - top) / rng.uniform(0.2, 0.35))
    colours = ((0.62, 0.8, 0.9), (0.92, 0.93, 0.93), (0.1, 0.1, 0.12), tuple(rng.uniform(0.1, 0.9, 3)))
    paint = _flat(image, np.array(colours[rng.integers(4)])) + pleats[..., None]
    return frame.soft(np.max([depth, *ears], axis=0)), paint


def _scarf(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    edge = rng.uniform(0.5, 0.95) + 0.06 * np.sin(rng.uniform(2, 5) * frame.u + rng.uniform(0, 6))
    stripes = np.sin(2 * np.pi * (frame.v + rng.uniform(-0.5, 0.5) * frame.u) / rng.uniform(0.15, 0.4)) > 0
    first, second = rng.uniform(0.05, 0.9, (2, 3))
    paint = np.where(stripes[..., None], first, second) + 0.05 * frame.noise(rng, 0.03)[..., None]
    return frame.soft(frame.v - edge), paint


def _cap(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    brim = rng.uniform(-0.55, -0.3) + rng.uniform(0.05, 0.2) * frame.u**2
    colour = rng.uniform(0.02, 0.8, 3)
    peak = (frame.v > brim - 0.22)[..., None]
    paint = np.where(peak, 0.6 * colour, colour) + 0.04 * frame.noise(rng, 0.05)[..., None]
    return frame.soft(brim - frame.v), paint


def _fringe(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    lean, side = rng.uniform(-0.3, 0.3), rng.choice((-1, 1))
    strands = 0.15 * frame.noise(rng, 0.06)
    edge = rng.uniform(-0.35, -0.05) + lean * frame.u + 0.3 * np.clip(side * frame.u - 0.4, 0, 1) + strands
    return frame.soft(edge - frame.v, 3), _hair(frame, image, rng)


def _eye_patch(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    side = rng.choice((-0.5, 0.5))
    patch = frame.ellipse(side, 0.03, rng.uniform(0.28, 0.42), rng.uniform(0.24, 0.36), rng.uniform(2, 4))
    strap = frame.stroke([(-3 * side, -0.9), (side, 0), (3.2 * side, 0.15)], rng.uniform(0.02, 0.05))
    return frame.soft(np.maximum(patch, strap)), _flat(image, _dark(rng))


def _eye_bar(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    depth = frame.box(
        0, rng.uniform(-0.05, 0.05), rng.uniform(0.9, 1.3), rng.uniform(0.16, 0.32), rng.uniform(-0.1, 0.1)
    )
    return frame.soft(depth), _flat(image, rng.choice((0, 1, 2)) / 2 * rng.uniform(0.8, 1, 3))


def _forehead_bar(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    depth = frame.box(
        rng.uniform(-0.2, 0.2),
        rng.uniform(-0.7, -0.5),
        rng.uniform(0.5, 0.95),
        rng.uniform(0.1, 0.2),
        rng.uniform(-0.15, 0.15),
    )
    return frame.soft(depth), _flat(image, rng.uniform(0, 1, 3))


def _beard(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    jaw = frame.ellipse(0, 0.95, rng.uniform(0.75, 0.95), rng.uniform(0.75, 0.9), 2.5)
    top = frame.v - (rng.uniform(0.62, 0.72) - 0.5 * np.clip(np.abs(frame.u) - 0.5, 0, 1))
    lips = frame.ellipse(0, 1.0, 0.42, 0.13)
    cheeks = frame.v - (1.15 - 1.2 * np.clip(np.abs(frame.u) - 0.35, 0, 1)) * (np.abs(frame.u) > 0.35) * 0.8
    depth = np.min([jaw, top, cheeks, -lips], axis=0) + 0.03 * frame.noise(rng, 0.02)
    return rng.uniform(0.8, 0.97) * frame.soft(depth, 4), _hair(frame, image, rng)


def _shadow(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    dark = np.asarray(image * rng.uniform(0.08, 0.35), dtype=np.float64)
    angle = rng.uniform(-0.5, 0.5) + rng.choice((0, np.pi))
    beyond = frame.u * np.cos(angle) + frame.v * np.sin(angle) - rng.uniform(-0.1, 0.25)
    return frame.soft(beyond, rng.uniform(2, 12)), dark


def _sticker(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    u, v, size = rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 1.3), rng.uniform(0.18, 0.35)
    around = np.arctan2(frame.v - v, frame.u - u) + rng.uniform(0, 6)
    radius = size * (1 + rng.uniform(0, 0.35) * np.cos(rng.integers(3, 7) * around))
    depth = radius - np.hypot(frame.u - u, frame.v - v)
    first, second = rng.uniform(0, 1, (2, 3))
    return frame.soft(depth), np.where((depth > size * 0.4)[..., None], first, second)


def _overexposure(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    u, v = rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 1.2)
    depth = frame.ellipse(u, v, rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.8))
    paint = 0.98 - 0.1 * (1 - image) + 0.01 * frame.noise(rng, 0.02)[..., None]
    return frame.soft(depth, rng.uniform(5, 15)), paint


def _blur(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    depth = _spot(frame, rng)
    sigma = rng.uniform(0.15, 0.25) / frame.pixel
    return frame.soft(depth, 4), gaussian_filter(image.astype(np.float64), (sigma, sigma, 0))


def _mosaic(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    step = max(2, round(rng.uniform(0.22, 0.35) / frame.pixel))
    means = gaussian_filter(image.astype(np.float64), (step / 3, step / 3, 0))[
        step // 2 :: step, step // 2 :: step
    ]
    blocks = zoom(means, (step, step, 1), order=0)
    missing = [(0, max(0, full - have)) for full, have in zip(image.shape, blocks.shape, strict=True)]
    paint = np.pad(blocks, missing, mode="edge")[: image.shape[0], : image.shape[1]]
    return frame.soft(_spot(frame, rng)), paint


def _hand(frame: Frame, image: Image, rng: np.random.Generator) -> Layer:
    side, v, reach = rng.choice((-1, 1)), rng.uniform(0.1, 1.1), rng.uniform(-0.3, 0.2)
    palm = frame.ellipse(side * 1.25, v + 0.1, 0.65, 0.42)
    lengths = reach + 0.1 * np.array([0.3, 0, 0.1, 0.6])
    fingers = [
        frame.stroke([(side * 1.2, v + 0.05 + 0.12 * i), (side * length, v - 0.3 + 0.2 * i)], 0.1)
        for i, length in enumerate(lengths)
    ]
    creases = np.abs(fingers[0] - fingers[1]) < 0.03
    shade = 1 - 0.2 * creases + 0.03 * frame.noise(rng, 0.08)
    skin = np.array((0.8, 0.6, 0.5)) * rng.uniform(0.4, 1.15) + rng.uniform(-0.04, 0.04, 3)
    return frame.soft(np.max([palm, *fingers], axis=0)), skin * shade[..., None]


def _wires(frame: Frame, width: float, drop: float, rim: float) -> Plane:
    """Bridge and temples of glasses."""
    bridge = frame.stroke([(-0.5 + width, drop - 0.05), (0.5 - width, drop - 0.05)], rim / 2)
    temples = [
        frame.stroke([(side * (0.5 + width), drop - 0.05), (side * 2, drop - 0.1)], rim / 2)
        for side in (-1, 1)
    ]
    depth: Plane = np.max([bridge, *temples], axis=0)
    return depth


def _spot(frame: Frame, rng: np.random.Generator) -> Plane:
    """Depth inside an ellipse somewhere on the face."""
    u, v = rng.uniform(-0.6, 0.6), rng.uniform(-0.4, 1.2)
    return frame.ellipse(u, v, rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.55))


def _hair(frame: Frame, image: Image, rng: np.random.Generator) -> NDArray[np.float64]:
    """Strands, from black to grey."""
    colours = np.array(((0.06, 0.05, 0.05), (0.25, 0.16, 0.1), (0.5, 0.36, 0.2), (0.62, 0.62, 0.62)))
    strands = gaussian_filter(rng.standard_normal(frame.u.shape), (0.12 / frame.pixel, 0.6))
    shade = 1 + 0.25 * strands / max(float(strands.std()), 1e-12)
    return np.asarray(colours[rng.integers(4)] * shade[..., None])


def _dark(rng: np.random.Generator) -> NDArray[np.float64]:
    """A dark colour, of whatever tint."""
    return np.asarray(rng.uniform(0, 0.25) * rng.uniform(0.5, 1, 3))


def _flat(image: Image, colour: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.broadcast_to(np.asarray(colour, dtype=np.float64), image.shape).copy()


OCCLUDERS: dict[str, Drawer] = {
    "glasses": _glasses,
    "sunglasses": _sunglasses,
    "surgical mask": _surgical_mask,
    "scarf": _scarf,
    "cap": _cap,
    "fringe": _fringe,
    "eye patch": _eye_patch,
    "bar over the eyes": _eye_bar,
    "bar on the forehead": _forehead_bar,
    "beard": _beard,
    "shadow over one side": _shadow,
    "sticker": _sticker,
    "overexposure": _overexposure,
    "blur": _blur,
    "mosaic": _mosaic,
    "hand": _hand,
}
"""What can be drawn over a face, by name."""
