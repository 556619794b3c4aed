"""Sets of masks over the pixels, kept as a few numbers each and drawn when they are needed.

A set is made once, from the size of the images and a seed, and serves every face and every pair. Sizes are given for
faces of 112×112 pixels and scale with the height and width of the images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "BoxMasks",
    "GaussianMasks",
    "GridMasks",
    "Masks",
    "gaussian_lattice",
    "random_boxes",
    "random_grids",
    "ranges",
    "scaled_size",
    "systematic_boxes",
    "weighted_sum",
]

REFERENCE_SIDE = 112
"""Side, in pixels, of the faces that published sizes are for."""

_AT_ONCE = 64  # fixed, so that sums do not depend on the size of forward batches


@dataclass(frozen=True)
class Masks(ABC):
    """Numbered masks with values in [0, 1], for images of a height and width."""

    shape: tuple[int, int]

    @abstractmethod
    def __len__(self) -> int:
        """How many masks there are."""

    @abstractmethod
    def draw(self, which: slice, like: Tensor) -> Tensor:
        """The masks of a range, K×H×W, on the device and of the type of another tensor."""


@dataclass(frozen=True)
class BoxMasks(Masks):
    """1 inside any of a mask's boxes, 0 outside.

    Attributes:
        corners: top and left of the boxes, in pixels; masks × boxes × 2.
        size: height and width of all boxes.
    """

    corners: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.corners)

    def draw(self, which: slice, like: Tensor) -> Tensor:
        corners = self.corners[which].to(like.device)
        rows, columns = (
            _spans(corners[..., axis], self.size[axis], self.shape[axis]).to(like) for axis in range(2)
        )
        covered = torch.einsum("kph,kpw->khw", rows, columns)
        return covered.clamp(max=1)


@dataclass(frozen=True)
class GridMasks(Masks):
    """Coarse binary grids, enlarged bilinearly and shifted by less than a cell (RISE, arXiv 1806.07421).

    Attributes:
        cells: values of the grid; masks × rows × columns.
        shifts: rows and columns, in pixels, by which the enlarged grid is shifted; masks × 2.
    """

    cells: Tensor
    shifts: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def draw(self, which: slice, like: Tensor) -> Tensor:
        cells, shifts = self.cells[which].to(like), self.shifts[which].to(like.device)
        rows, columns = (self._enlargement(shifts[:, axis], axis, like) for axis in range(2))
        return rows @ cells @ columns.transpose(1, 2)

    def _enlargement(self, shifts: Tensor, axis: int, like: Tensor) -> Tensor:
        """Weights of the cells in each pixel along an axis: masks × pixels × cells."""
        count, side = self.cells.shape[axis + 1], self.shape[axis]
        length = (count + 1) * grid_cell(side, count)
        identity = torch.eye(count, dtype=like.dtype, device=like.device)[None]
        weights = functional.interpolate(identity, length, mode="linear", align_corners=False)[0].T
        return weights[shifts[:, None] + torch.arange(side, device=like.device)]


@dataclass(frozen=True)
class GaussianMasks(Masks):
    """Gaussian bells of height 1.

    Attributes:
        centres: row and column of the centres, in pixels; masks × 2.
        sigmas: standard deviation along rows and columns, in pixels.
    """

    centres: Tensor
    sigmas: tuple[float, float]

    def __len__(self) -> int:
        return len(self.centres)

    def draw(self, which: slice, like: Tensor) -> Tensor:
        rows, columns = (self._profile(self.centres[which, axis], axis, like) for axis in range(2))
        return rows[:, :, None] * columns[:, None, :]

    def only(self, which: slice | Tensor) -> GaussianMasks:
        """Some of the masks, in the order given."""
        index = which.to(self.centres.device) if isinstance(which, Tensor) else which
        return GaussianMasks(self.shape, self.centres[index], self.sigmas)

    def _profile(self, centres: Tensor, axis: int, like: Tensor) -> Tensor:
        pixels = torch.arange(self.shape[axis], dtype=like.dtype, device=like.device)
        return torch.exp(-0.5 * ((pixels - centres.to(like)[:, None]) / self.sigmas[axis]) ** 2)


def random_boxes(count: int, boxes: int, side: float, shape: tuple[int, int], seed: int) -> BoxMasks:
    """Masks of several square boxes each, at uniformly random places inside the image."""
    size = scaled_size(side, shape)
    generator = torch.Generator().manual_seed(seed)
    corners = [
        torch.randint(shape[axis] - size[axis] + 1, (count, boxes), generator=generator) for axis in range(2)
    ]
    return BoxMasks(shape, torch.stack(corners, dim=-1), size)


def systematic_boxes(side: float, stride: float, shape: tuple[int, int]) -> BoxMasks:
    """One box a mask, at every stride, and flush with the far edges, so that every pixel is covered."""
    size, steps = scaled_size(side, shape), scaled_size(stride, shape)
    rows, columns = (_positions(shape[axis] - size[axis], steps[axis]) for axis in range(2))
    return BoxMasks(shape, torch.cartesian_prod(rows, columns)[:, None], size)


def inner_boxes(side: int, stride: int, shape: tuple[int, int]) -> BoxMasks:
    """One box a mask, of `side` + 1 pixels, at every stride from the near edges; none is flush with the far ones."""
    axes = (torch.arange(0, max(1, length - side), stride) for length in shape)
    return BoxMasks(shape, torch.cartesian_prod(*axes)[:, None], (side + 1, side + 1))


def random_grids(count: int, cells: int, keep: float, shape: tuple[int, int], seed: int) -> GridMasks:
    """RISE's masks: each cell is 1 with probability `keep`."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand((count, cells, cells), generator=generator) < keep
    shifts = [torch.randint(grid_cell(side, cells), (count,), generator=generator) for side in shape]
    return GridMasks(shape, values, torch.stack(shifts, dim=-1))


def gaussian_lattice(sigma: float, stride: float, shape: tuple[int, int]) -> GaussianMasks:
    """Gaussian bells on a regular lattice, centred in the image."""
    steps = scaled_size(stride, shape)
    axes = []
    for side, step in zip(shape, steps, strict=True):
        count = -(-side // step)
        axes.append((torch.arange(count) - (count - 1) / 2) * step + (side - 1) / 2)
    sigmas = (sigma * shape[0] / REFERENCE_SIDE, sigma * shape[1] / REFERENCE_SIDE)
    return GaussianMasks(shape, torch.cartesian_prod(*axes), sigmas)


def weighted_sum(weights: Tensor, masks: Masks) -> Tensor:
    """Σ_k weights M×K · masks K×H×W → M×H×W."""
    total = weights.new_zeros(len(weights), *masks.shape)
    for which in ranges(len(masks), _AT_ONCE):
        total += torch.einsum("mk,khw->mhw", weights[:, which], masks.draw(which, weights))
    return total


def scaled_size(side: float, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width, for images of a shape, of what is `side` pixels high and wide at 112×112; at least 1."""
    height, width = (min(max(1, int(side * pixels / REFERENCE_SIDE + 0.5)), pixels) for pixels in shape)
    return height, width


def grid_cell(side: int, count: int) -> int:
    """Pixels along a side of a cell of an enlarged grid, which covers the image with a cell to spare."""
    return -(-side // count)


def ranges(count: int, at_once: int) -> Iterator[slice]:
    """Consecutive slices of at most `at_once` of `count` things."""
    for start in range(0, count, at_once):
        yield slice(start, min(start + at_once, count))


def _spans(starts: Tensor, length: int, side: int) -> Tensor:
    """Whether pixel i of a side lies in [start, start + length), with the pixels as last dimension."""
    offsets = torch.arange(side, device=starts.device) - starts[..., None]
    return (offsets >= 0) & (offsets < length)


def _positions(last: int, step: int) -> Tensor:
    regular = torch.arange(0, last + 1, step)
    return regular if int(regular[-1]) == last else torch.cat((regular, torch.tensor([last])))
