"""The plainest forms of the masking methods: one masked face at a time, for float64 comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr import CorrRise, MeryAvg, MinPlus, SRise, XFace
from xfr_plugin.attr._base.masks import random_boxes, random_grids

Score = Callable[[Tensor, Tensor], Tensor]
Single = tuple[Tensor, Tensor]


def filled(image: Tensor, fill: str | float) -> Tensor:
    if fill == "blur":
        return smooth(image, 8 * math.sqrt(image[0].numel()) / 112, "sized")
    value = {"black": 0.0, "mean": image.mean(dim=(1, 2), keepdim=True)}.get(fill, fill)
    return torch.ones_like(image) * value


def smooth(maps: Tensor, sigma: float, kernel: int | str) -> Tensor:
    """SciPy's Gaussian, mirrored at the border, cut off where ours is."""
    reach = (
        min(int(3 * sigma + 0.5), maps.shape[-2] - 1, maps.shape[-1] - 1)
        if kernel == "sized"
        else int(kernel) // 2
    )
    axes = (maps.ndim - 2, maps.ndim - 1)
    return torch.from_numpy(gaussian_filter(maps.numpy(), sigma, mode="mirror", radius=reach, axes=axes))


def finished(maps: Tensor, options: dict[str, Any]) -> Tensor:
    blur = options.get("blur")
    return maps if blur is None else smooth(maps, blur[1], blur[0])


def masked(image: Tensor, keep: Tensor, options: dict[str, Any]) -> Tensor:
    return image * keep + filled(image, options.get("fill", "black")) * (1 - keep)


def score_of(images: Single, side: int, changed: Tensor, score: Score) -> float:
    """The score with one side changed; the partner is embedded again."""
    both = [image[None] for image in images]
    both[side] = changed[None]
    return float(score(both[0], both[1]))


def scaled(length: float, side: int) -> int:
    return max(1, math.floor(length * side / 112 + 0.5))


def box_keep(corners: Tensor, size: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    keep = torch.ones(shape, dtype=torch.float64)
    for top, left in corners.tolist():
        keep[top : top + size[0], left : left + size[1]] = 0
    return keep


def corrrise(images: Single, score: Score, _: float, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    shape = (images[0].shape[1], images[0].shape[2])
    side = options.get("patch_size", 30)
    size = (scaled(side, shape[0]), scaled(side, shape[1]))
    boxes = random_boxes(options["n_masks"], options.get("n_patches", 3), side, shape, options.get("seed", 0))
    keeps = torch.stack([box_keep(corners, size, shape) for corners in boxes.corners])
    correlate = spearman if options.get("correlation") == "spearman" else pearson
    maps = []
    for face in range(2):
        scores = [score_of(images, face, masked(images[face], keep, options), score) for keep in keeps]
        saliency = torch.zeros(shape, dtype=torch.float64)
        for y in range(shape[0]):
            for x in range(shape[1]):
                if 0 < keeps[:, y, x].sum() < len(keeps):
                    saliency[y, x] = correlate(scores, keeps[:, y, x].numpy())
        maps.append(finished(saliency, options))
    return maps[0], maps[1]


def pearson(scores: list[float], kept: NDArray[np.float64]) -> float:
    return float(np.corrcoef(scores, kept)[0, 1])


def spearman(scores: list[float], kept: NDArray[np.float64]) -> float:
    return float(spearmanr(scores, kept).statistic)


def rise_keep(cells: Tensor, shifts: Tensor, shape: tuple[int, int]) -> Tensor:
    """The grid enlarged by PyTorch, and cut out."""
    heights = [(len(cells) + 1) * math.ceil(side / len(cells)) for side in shape]
    large = functional.interpolate(cells.double()[None, None], heights, mode="bilinear")[0, 0]
    top, left = shifts.tolist()
    return large[top : top + shape[0], left : left + shape[1]]


def srise(images: Single, score: Score, threshold: float, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    shape = (images[0].shape[1], images[0].shape[2])
    count, probability = options["n_masks"], options.get("keep_probability", 0.5)
    grids = random_grids(count, options.get("grid", 7), probability, shape, options.get("seed", 0))
    keeps = [rise_keep(*mask, shape) for mask in zip(grids.cells, grids.shifts, strict=True)]
    maps = []
    for face in range(2):
        scores = [score_of(images, face, masked(images[face], keep, options), score) for keep in keeps]
        level = {"mean": float(np.mean(scores)), "threshold": threshold, "none": 0.0}[
            options.get("level", "mean")
        ]
        total = sum((value - level) * keep for value, keep in zip(scores, keeps, strict=True))
        maps.append(finished(torch.as_tensor(total) / (count * probability), options))
    return maps[0], maps[1]


def patches(size: tuple[int, int], stride: tuple[int, int], shape: tuple[int, int]) -> Iterator[Tensor]:
    tops, lefts = (
        sorted({*range(0, side - length + 1, step), side - length})
        for side, length, step in zip(shape, size, stride, strict=True)
    )
    for top in tops:
        for left in lefts:
            yield box_keep(torch.tensor([[top, left]]), size, shape)


def xface(images: Single, score: Score, _: float, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    shape = (images[0].shape[1], images[0].shape[2])
    stride = (scaled(options["stride"], shape[0]), scaled(options["stride"], shape[1]))
    clean = float(score(images[0][None], images[1][None]))
    sizes: list[list[Tensor]] = [[], []]
    for length in options.get("patch_sizes", (7, 14, 28)):
        size = (scaled(length, shape[0]), scaled(length, shape[1]))
        keeps = list(patches(size, stride, shape))
        for face in range(2):
            total, covering = torch.zeros(2, *shape, dtype=torch.float64)
            for i, keep in enumerate(keeps):
                distance = 1 - occluded_score(images, face, keeps, i, score, options)
                total += (1 - keep) * (distance - (1 - clean)) / (size[0] * size[1])
                covering += 1 - keep
            sizes[face].append((total / covering.clamp_min(1), covering > 0))
    sigma = options["stride"] * math.sqrt(shape[0] * shape[1]) / 112
    means = [sum(m for m, _ in found) / sum(c.double() for _, c in found).clamp_min(1) for found in sizes]
    if options.get("blur", "stride") == "stride":
        return smooth(means[0], sigma, "sized"), smooth(means[1], sigma, "sized")
    return finished(means[0], options), finished(means[1], options)


def occluded_score(
    images: Single, face: int, keeps: list[Tensor], i: int, score: Score, options: dict[str, Any]
) -> float:
    changed = masked(images[face], keeps[i], options)
    partner = images[1 - face]
    pairing = options.get("pairing", "clean")
    others = {"clean": [], "same": [keeps[i]], "all": keeps}[pairing]
    partners = [masked(partner, keep, options) for keep in others] or [partner]
    both = [(changed, other) if face == 0 else (other, changed) for other in partners]
    return float(np.mean([float(score(a[None], b[None])) for a, b in both]))


def bells(options: dict[str, Any], shape: tuple[int, int]) -> list[Tensor]:
    """Gaussians on a lattice, centred in the image: as many as it takes to cover it, step by step."""
    axes, profiles = [], []
    for side in shape:
        step = scaled(options["stride"], side)
        count = math.ceil(side / step)
        margin = (side - 1 - (count - 1) * step) / 2
        axes.append([margin + i * step for i in range(count)])
    for row in axes[0]:
        for column in axes[1]:
            y, x = torch.meshgrid(*(torch.arange(side).double() for side in shape), indexing="ij")
            sigmas = [options.get("sigma", 10) * side / 112 for side in shape]
            profiles.append(
                torch.exp(-(((y - row) / sigmas[0]) ** 2) / 2 - ((x - column) / sigmas[1]) ** 2 / 2)
            )
    return profiles


def mery(rounds: int) -> Callable[..., tuple[Tensor, Tensor]]:
    def loop(images: Single, score: Score, _: float, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        regions = bells(options, (images[0].shape[1], images[0].shape[2]))
        strategies = {"both": ("removal", "aggregation")}.get(
            options.get("strategy", "both"), (options.get("strategy"),)
        )
        maps = []
        for face in range(2):
            found = [
                greedy(
                    images,
                    face,
                    regions,
                    name == "aggregation",
                    options.get("rounds", rounds),
                    score,
                    options,
                )
                for name in strategies
            ]
            change = sum(found) / len(found)
            total = sum(float(c) * g for c, g in zip(change, regions, strict=True))
            maps.append(finished(total / sum(regions), options))
        return maps[0], maps[1]

    return loop


def greedy(
    images: Single,
    face: int,
    regions: list[Tensor],
    adding: bool,
    rounds: int,
    score: Score,
    options: dict[str, Any],
) -> Tensor:
    taken: list[Tensor] = []
    changes = []

    def scored(gone: list[Tensor]) -> float:
        product = torch.ones_like(regions[0])
        for bell in gone:
            product = product * (1 - bell)
        keep = 1 - product if adding else product
        return score_of(images, face, masked(images[face], keep, options), score)

    for _ in range(rounds):
        now = scored(taken)
        after = torch.tensor([scored([*taken, bell]) for bell in regions], dtype=torch.float64)
        changes.append(after - now if adding else now - after)
        taken.append(regions[int(changes[-1].argmax())])
    return sum(changes) / rounds


LOOPS = {CorrRise: corrrise, SRise: srise, XFace: xface, MeryAvg: mery(1), MinPlus: mery(3)}
"""Class → loop, from (probe, reference), score function, threshold and options to both maps."""


def plant(block: int, alike: bool) -> tuple[Callable[[Tensor], Tensor], Single, Tensor]:
    """A recognizer of six blocks' brightness, and a pair of 24×20 faces that differ in one block, or agree in one.

    Returns:
        The recognizer; the pair, 1×3×24×20 each; and where the block is.
    """
    signs = torch.tensor([1.0, -1, 1, 1, -1, 1], dtype=torch.float64)
    flips = torch.full((6,), 1.0 if alike else -1.0, dtype=torch.float64)
    flips[block] *= -1
    probe, reference = (0.5 + 0.4 * sign.view(3, 2) for sign in (signs, signs * flips))
    images = tuple(
        brightness.repeat_interleave(8, 0).repeat_interleave(10, 1).expand(1, 3, 24, 20)
        for brightness in (probe, reference)
    )

    def embed(faces: Tensor) -> Tensor:
        blocks = functional.avg_pool2d(faces.mean(dim=1, keepdim=True), (8, 10)) - 0.5
        constant = torch.full((len(faces), 1), 0.3, dtype=faces.dtype)  # an empty face has an embedding too
        return torch.cat((blocks.flatten(1), constant), dim=1)

    inside = torch.arange(6).view(3, 2).repeat_interleave(8, 0).repeat_interleave(10, 1) == block
    return embed, (images[0], images[1]), inside
