"""Aligned faces with the outlines of their features, for the training of the outline finder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import MESH_FEATURES, mesh_regions
from xfr_plugin.swaps.regions import region_index
from xfr_plugin.training.faces_data import read_faces

__all__ = ["OutlineSet", "Outlines", "read_outlines", "shape_model"]

_CHUNK = 256
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Outlines:
    """The outline points of a set of face meshes.

    Attributes:
        points: by file, K×2, in pixels of the 112×112 crop.
        features: numbers of the points of each named feature, in order along its outline.
    """

    points: dict[str, NDArray[np.float32]]
    features: dict[str, list[int]]

    @property
    def count(self) -> int:
        """How many points there are (K)."""
        return 1 + max(max(numbers) for numbers in self.features.values())


@dataclass
class OutlineSet:
    """Faces and their outlines.

    Attributes:
        images: grey, uint8, N×1×112×112.
        points: in pixels, N×K×2.
        regions: of each pixel, see `swaps.regions.region_index`, N×112×112.
    """

    images: Tensor
    points: Tensor
    regions: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> None:
        """Move images and regions; points stay."""
        self.images, self.regions = self.images.to(device), self.regions.to(device)

    @classmethod
    def read(cls, folder: Path, faces: dict[str, list[str]], outlines: Outlines) -> OutlineSet:
        """Read the faces that have outlines; `faces` lists files below `folder` by person.

        Raises:
            InputError: none has.
            PhotoFormatError: a file is damaged or no image.
        """
        present = {p: [f for f in files if f in outlines.points] for p, files in faces.items()}
        found = read_faces(folder, {person: files for person, files in present.items() if files})
        if not len(found):
            raise InputError(f"no face in {folder} has a mesh")
        luma = torch.tensor(_LUMA)[:, None, None]
        grey = [
            (chunk.float() * luma).sum(1, keepdim=True).round().byte() for chunk in found.images.split(_CHUNK)
        ]
        points = np.stack([outlines.points[file] for file in found.files])
        regions = region_index([mesh_regions(mesh, outlines.features) for mesh in points])
        return cls(torch.cat(grey), torch.from_numpy(points), regions)


def read_outlines(root: Path) -> Outlines:
    """Read the outline points from `mesh468_aligned.npz` and `regions.json` below `root`.

    Raises:
        InputError: a file is missing.
    """
    meshes, regions = root / "mesh468_aligned.npz", root / "regions.json"
    for path in (meshes, regions):
        if not path.is_file():
            raise InputError(f"no face meshes: {path} is missing")
    vertices = MESH_FEATURES | json.loads(regions.read_text(encoding="utf-8"))["mesh_indices"]
    features = _renumbered(vertices)
    used = sorted({vertex for numbers in vertices.values() for vertex in numbers})
    with np.load(meshes, allow_pickle=False) as stored:
        points = (stored["mesh_u8"][:, used].astype(np.float32) / 1.5) - 32
        return Outlines(dict(zip(map(str, stored["files"]), points, strict=True)), features)


def shape_model(shapes: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (K×2), principal components in standard deviations (C×K×2), and the shapes' coefficients (N×C).

    Raises:
        InputError: there are not more shapes than components.
    """
    if len(shapes) <= components:
        raise InputError(f"{len(shapes)} faces are too few for a shape model of {components} components")
    flat = shapes.double().flatten(1)
    mean = flat.mean(0)
    _, lengths, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    spread = lengths[:components] / len(flat) ** 0.5
    coefficients = (flat - mean) @ axes[:components].T / spread
    basis = (axes[:components] * spread[:, None]).reshape(components, *shapes.shape[1:])
    return mean.reshape(shapes.shape[1:]).float(), basis.float(), coefficients.float()


def _renumbered(vertices: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Number the vertices that are used, in their order, from 0."""
    used = sorted({vertex for numbers in vertices.values() for vertex in numbers})
    place = {vertex: number for number, vertex in enumerate(used)}
    return {name: [place[vertex] for vertex in numbers] for name, numbers in vertices.items()}
