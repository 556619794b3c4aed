"""Planted pairs: the faces with the regions planted, and what that did to their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.faces.photo import read_face
from xfr_plugin.faces.regions import RegionMap, RegionsOf, template_regions
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.blending import blend_region
from xfr_plugin.swaps.planting import Planting, named_regions
from xfr_plugin.swaps.whole import whole_changes

__all__ = ["PlantedPairs", "as_floats", "build_pairs", "plant"]


@dataclass(frozen=True)
class PlantedPairs:
    """Planted pairs, ready to be explained.

    Attributes:
        plantings: what was planted.
        probes: planted probes, N×3×H×W, 0…255.
        references: N×3×H×W, 0…255.
        clean: scores before the planting, N.
        planted: scores after it, N.
        probe_regions: named regions of each probe.
        reference_regions: named regions of each reference.
    """

    plantings: tuple[Planting, ...]
    probes: Tensor
    references: Tensor
    clean: NDArray[np.float64]
    planted: NDArray[np.float64]
    probe_regions: tuple[RegionMap, ...]
    reference_regions: tuple[RegionMap, ...]

    def __len__(self) -> int:
        return len(self.plantings)


def build_pairs(
    recognizer: Recognizer, folder: Path, plantings: Sequence[Planting], regions_of: RegionsOf | None = None
) -> PlantedPairs:
    """Read the faces, plant the regions, and score the pairs before and after.

    Args:
        recognizer: whose input size and scores are used.
        folder: of aligned faces.
        plantings: what to plant.
        regions_of: regions of each face; those of the template, if left out.

    Raises:
        PhotoError: a face cannot be read.
        InputError: a region is empty on a face.
    """
    size = recognizer.input_size
    regions = regions_of or (lambda _file: template_regions(size))
    faces = {
        file: read_face(folder / file, size) for p in plantings for file in (p.probe, p.reference, p.donor)
    }
    planted = [
        plant(faces[p.probe], faces[p.donor], p, regions(p.probe), regions(p.donor)) for p in plantings
    ]
    probes, references = _stacked(planted), _stacked([faces[p.reference] for p in plantings])
    embeddings = _embed(recognizer, references)
    clean = _embed(recognizer, _stacked([faces[p.probe] for p in plantings]))
    return PlantedPairs(
        plantings=tuple(plantings),
        probes=probes,
        references=references,
        clean=(clean * embeddings).sum(dim=1).double().numpy(),
        planted=(_embed(recognizer, probes) * embeddings).sum(dim=1).double().numpy(),
        probe_regions=tuple(regions(planting.probe) for planting in plantings),
        reference_regions=tuple(regions(planting.reference) for planting in plantings),
    )


def plant(
    probe: NDArray[np.float32],
    donor: NDArray[np.float32],
    planting: Planting,
    regions: RegionMap,
    theirs: RegionMap,
) -> NDArray[np.float32]:
    """Plant a region of the donor into the probe, both H×W×3 in [0, 1], with the regions of the probe and its own.

    Raises:
        InputError: the region is empty on the probe.
    """
    names = named_regions(planting.region)
    mask = regions.mask(*names)
    if planting.blending != "whole" or not mask.any():
        return blend_region(probe, donor, mask, planting.blending, planting.strength)
    changes = whole_changes(probe, donor, regions, theirs, names)
    return np.clip(probe + planting.strength * changes, 0, 1).astype(np.float32)


def _stacked(faces: Sequence[NDArray[np.float32]]) -> Tensor:
    stacked = np.stack(faces).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.rint(stacked * 255).astype(np.uint8))


def as_floats(images: Tensor) -> Tensor:
    """Images in [0, 1] from 8-bit ones."""
    return images.float() / 255


def _embed(recognizer: Recognizer, images: Tensor) -> Tensor:
    chunks = [as_floats(chunk).to(recognizer.device) for chunk in images.split(64)]
    return torch.cat([recognizer.embed(chunk) for chunk in chunks]).cpu()
