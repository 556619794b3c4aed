"""Slow, obvious references of soft masks, seams and exchanged regions: pixel by pixel, in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Plane = NDArray[np.float64]
Array = TypeVar("Array", Mask, Plane)

DEVICES = ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
SIZE = (56, 40)


def _once(of: Callable[[Mask], Array]) -> Callable[[Mask], Array]:
    """Remember what was found of each mask: the loops take their time."""

    @cache
    def of_pixels(pixels: bytes) -> Array:
        return of(np.frombuffer(pixels, dtype=np.bool_).reshape(SIZE))

    return lambda mask: of_pixels(mask.tobytes())


def masks() -> dict[str, Mask]:
    """Regions within the crop, at its edges, in two pieces, of everything, of nothing."""
    found = {
        name: np.zeros(SIZE, dtype=np.bool_) for name in ("inside", "corner", "pieces", "all", "nothing")
    }
    found["inside"][20:31, 12:22] = True
    found["inside"][22, 15] = False
    found["corner"][44:, 30:] = True
    found["pieces"][3:9, :7] = found["pieces"][8:14, 25:33] = True
    found["all"][:] = True
    return found


def neighbours(row: int, column: int) -> Iterator[tuple[int, int]]:
    """Pixels above, below, left and right, as far as the crop has them."""
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        if 0 <= row + down < SIZE[0] and 0 <= column + right < SIZE[1]:
            yield row + down, column + right


def within(mask: Mask, steps: int) -> Mask:
    """Pixels at most so many steps away from the mask."""
    found = np.zeros_like(mask)
    for row, column in np.ndindex(*mask.shape):
        found[row, column] = any(abs(row - y) + abs(column - x) <= steps for y, x in np.argwhere(mask))
    return found


@_once
def seam(mask: Mask) -> Mask:
    """Pixels of the mask with a neighbour outside, and those up to two steps around it."""
    found = within(mask, 2)
    for row, column in np.argwhere(mask):
        found[row, column] = not all(mask[place] for place in neighbours(row, column))
    return found


@_once
def feathered(mask: Mask) -> Plane:
    """Gaussian average; beyond its edge the crop is mirrored."""
    sigma = 1.5 / 112 * SIZE[0]
    reach = range(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    bell = {step: math.exp(-(step**2) / (2 * sigma**2)) for step in reach}
    whole = sum(bell.values())

    def mirrored(place: int, length: int) -> int:
        return -1 - place if place < 0 else 2 * length - 1 - place if place >= length else place

    found = np.zeros(SIZE)
    for row, column in np.ndindex(*SIZE):
        for down in reach:
            for right in reach:
                there = mask[mirrored(row + down, SIZE[0]), mirrored(column + right, SIZE[1])]
                found[row, column] += bell[down] * bell[right] / whole**2 * there
    return found


def change(face: Plane, donor: Plane, mask: Mask) -> Plane:
    """What the donor's region adds to the face, C×H×W."""
    ring, weight, found = np.argwhere(seam(mask)), feathered(mask), np.zeros_like(face)
    for colour in range(len(face)):
        apart = [float(face[colour, y, x] - donor[colour, y, x]) for y, x in ring]
        shift = sum(apart) / len(apart) if apart else 0.0
        for y, x in np.ndindex(*SIZE):
            shifted = donor[colour, y, x] + shift
            found[colour, y, x] = weight[y, x] * (shifted - face[colour, y, x])
    return found


def seamless_change(face: Plane, donor: Plane, mask: Mask) -> Plane:
    """The same with the donor's gradients: for each pixel of the region an equation, all solved at once.

    Σ over neighbours q of (u_p − u_q) = the same of the donor; u is the face's around the region.
    """
    number = {(int(y), int(x)): index for index, (y, x) in enumerate(np.argwhere(mask))}
    left, right = np.zeros((len(number), len(number))), np.zeros((len(number), len(face)))
    for (y, x), index in number.items():
        for place in neighbours(y, x):
            left[index, index] += 1
            right[index] += donor[:, y, x] - donor[(slice(None), *place)]
            if place in number:
                left[index, number[place]] -= 1
            else:
                right[index] += face[(slice(None), *place)]
    found = np.zeros_like(face)
    for (y, x), colours in zip(number, np.linalg.solve(left, right), strict=True):
        found[:, y, x] = colours - face[:, y, x]
    return found
