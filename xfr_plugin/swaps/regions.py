"""The regions that are exchanged as a whole: which they are, where they lie on a face, and maps of their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import REGION_NAMES, RegionMap, template_regions
from xfr_plugin.swaps.masks import core_depths, grown

__all__ = [
    "COARSE_REGIONS",
    "FINE_REGIONS",
    "FaceRegions",
    "Grouping",
    "face_regions",
    "named_errors",
    "rasterize",
    "region_index",
    "regions_of",
    "turn_of",
]


Grouping: TypeAlias = Mapping[str, tuple[str, ...]]
"""Players, and the named regions of a `RegionMap` that each consists of."""

COARSE_REGIONS: dict[str, tuple[str, ...]] = {
    "eyes": ("right_eye", "left_eye"),
    "brows": ("right_brow", "left_brow"),
    "nose": ("nose",),
    "mouth": ("mouth",),
    "forehead": ("forehead",),
    "cheeks": ("right_cheek", "left_cheek"),
    "chin": ("chin",),
    "outside": ("background", "hair", "right_ear", "left_ear"),
}
"""Eight players: regions of both sides go together, and what lies around the face is one of them."""

FINE_REGIONS: dict[str, tuple[str, ...]] = {name: (name,) for name in REGION_NAMES}
"""Each named region is a player of its own."""


@dataclass(frozen=True)
class FaceRegions:
    """The regions of one face that are exchanged as a whole.

    Attributes:
        labels: named regions, of which these consist.
        present: which of the R players the face shows.
        masks: R×H×W; of an absent region, the template's.
        grouping: the players.
    """

    labels: RegionMap
    present: NDArray[np.bool_]
    masks: NDArray[np.bool_]
    grouping: Grouping = field(default_factory=lambda: COARSE_REGIONS)

    @property
    def names(self) -> tuple[str, ...]:
        """The players, R."""
        return tuple(self.grouping)

    @cached_property
    def grown(self) -> Tensor:
        """The masks with the pixels around that come along, R×H×W of bools."""
        return grown(torch.from_numpy(self.masks))

    @cached_property
    def extents(self) -> Tensor:
        """Centre and standard deviations of each mask, R×2×2 of (x, y), in −1…1."""
        masks = torch.from_numpy(self.masks).double()
        height, width = masks.shape[1:]
        area = masks.sum(dim=(1, 2))
        result = []
        for length, sums in ((width, masks.sum(dim=1)), (height, masks.sum(dim=2))):
            places = (torch.arange(length).double() * 2 + 1) / length - 1
            mean = sums @ places / area
            deviation = (sums @ places.square() / area - mean.square()).clamp_min(1 / length**2).sqrt()
            result.append(torch.stack((mean, deviation), dim=1))
        return torch.stack(result, dim=2)

    @property
    def weights(self) -> NDArray[np.float64]:
        """How evidence lies on each region, R×H×W: zero outside, sums to 1; an absent region has zeros."""
        index, shares = self.cores
        weights: NDArray[np.float64] = np.where(
            index == np.arange(len(self.masks))[:, None, None], shares, 0.0
        )
        return weights

    @cached_property
    def cores(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Of each pixel H×W, to which region that the face shows it belongs, and its share of what lies there.

        R stands for none, with a share of 0. Outlines are off by two pixels of 112, so what is near to an outline may
        belong to the neighbour: from the outline inward shares rise as the root of the distance, up to five pixels
        of 112.
        """
        shown = self.masks & self.present[:, None, None]
        index = np.where(shown.any(axis=0), shown.argmax(axis=0), len(shown))
        depths = np.sqrt(core_depths(index))
        sums = np.bincount(index.ravel(), depths.ravel(), minlength=len(shown) + 1)
        sums[-1] = np.inf
        return index, depths / np.maximum(sums, 1e-12)[index]


def face_regions(images: Tensor, found: bool, grouping: Grouping = COARSE_REGIONS) -> list[FaceRegions]:
    """Regions of faces N×C×H×W: each face's own, where they are to be and can be found, or the template's."""
    size = (images.shape[2], images.shape[3])
    if found and images.shape[1] == 3:
        return regions_of(find_regions(images), grouping)
    return regions_of([template_regions(size)], grouping) * len(images)


def regions_of(labels: Sequence[RegionMap], grouping: Grouping = COARSE_REGIONS) -> list[FaceRegions]:
    """Regions of faces whose named regions are known."""
    return [_as_masks(regions, grouping) for regions in labels]


def region_index(maps: Sequence[RegionMap]) -> Tensor:
    """Which of the players each pixel belongs to, N×H×W of uint8."""
    labels = torch.stack([torch.from_numpy(regions.labels) for regions in maps])
    table = torch.zeros(len(maps[0].names), dtype=torch.uint8)
    for index, names in enumerate(COARSE_REGIONS.values()):
        for name in names:
            table[maps[0].names.index(name)] = index
    return table[labels.long()]


def turn_of(regions: RegionMap) -> float:
    """How far a face is turned: the difference of its cheeks' areas over their sum, −1…1."""
    areas = regions.areas()
    right, left = areas["right_cheek"], areas["left_cheek"]
    return (right - left) / max(1, right + left)


def rasterize(regions: FaceRegions, evidence: Tensor) -> Tensor:
    """Map H×W on which the evidence of each region, R, lies; see `FaceRegions.cores`."""
    index, shares = (torch.from_numpy(values).to(evidence.device) for values in regions.cores)
    return torch.cat((evidence, evidence.new_zeros(1)))[index] * shares.to(evidence)


def named_errors(regions: FaceRegions, errors: Tensor) -> dict[str, float]:
    """Errors of the named regions from those of R regions; regions of two sides share theirs by area."""
    areas = regions.labels.areas()
    named: dict[str, float] = {}
    for names, error in zip(regions.grouping.values(), errors.tolist(), strict=True):
        whole = sum(areas[name] for name in names)
        named |= {name: error * areas[name] / whole for name in names if areas[name]}
    return named


def _as_masks(regions: RegionMap, grouping: Grouping) -> FaceRegions:
    masks = np.stack([regions.mask(*names) for names in grouping.values()])
    present = np.asarray(masks.any(axis=(1, 2)))
    if not present.all():
        template = template_regions(regions.size)
        absent = [names for names, is_seen in zip(grouping.values(), present, strict=True) if not is_seen]
        masks[~present] = np.stack([template.mask(*names) for names in absent])
    # on very small faces: any pixel, which is then not reported
    masks[~np.asarray(masks.any(axis=(1, 2))), 0, 0] = True
    return FaceRegions(regions, present, masks, grouping)
