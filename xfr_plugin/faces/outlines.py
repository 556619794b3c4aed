"""The outline finder: the named regions of each aligned face, where the template has one drawing for all."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xfr_plugin.base.randomness import seeded
from xfr_plugin.base.weights import MODELS, halved, load_halved_into, read_weights, write_weights
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.faces.outline_network import (
    FRAME_SIDE,
    OutlineFinder,
    Sketch,
    from_frame,
    mirror_order,
    to_frame,
)
from xfr_plugin.faces.regions import MESH_FEATURES, RegionMap, mesh_regions, template_regions

__all__ = [
    "FaceOutlines",
    "Outliner",
    "find_outlines",
    "find_regions",
    "load_outline_finder",
    "save_outline_finder",
]

_CARD_KEY = "outlines"
_FORMAT = 2
_BATCH = 64
_MOST = 1000
_FEATURES = {"face_oval", "nose", "right_eye", "left_eye", "right_brow", "left_brow", "mouth", *MESH_FEATURES}
_SHAPE_MODEL = {"mean", "basis", "reach"}


@dataclass(frozen=True)
class FaceOutlines:
    """What was found in one aligned face.

    Attributes:
        regions: the face's own regions, or the template's where none were found.
        found: whether they are its own: the crop looks like an aligned face, and its outlines like a face's.
        points: the outlines, K×2, (x, y) in pixels of the crop; some lie outside it.
        score: how much the crop looks like an aligned face, 0…1.
        distance: of the outlines from the mean shape: root mean square of the shape model's coefficients, which
            is about 1 for faces.
    """

    regions: RegionMap
    found: bool
    points: NDArray[np.float64]
    score: float
    distance: float


class Outliner:
    """An outline finder, ready for use.

    Attributes:
        network: what it computes with, in evaluation mode.
        features: numbers of the points of each named feature, in order along its outline.
        label_offset: by how much the labels lie beside the places that a network trained on mirrored faces can
            learn, x and y in pixels of the 112×112 crop: labels of networks are often shifted to one side.
        card: what is known about it (training data, figures).
    """

    def __init__(
        self,
        network: OutlineFinder,
        features: Mapping[str, Sequence[int]],
        label_offset: tuple[float, float] = (0.0, 0.0),
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.features = {name: list(numbers) for name, numbers in features.items()}
        self.label_offset = label_offset
        self.card = dict(card or {})

    def __call__(
        self, images: Tensor | NDArray[np.uint8], *, as_labelled: bool = False
    ) -> list[FaceOutlines]:
        """Find the outlines and the regions of aligned faces; see `find_outlines`."""
        from xfr_plugin.faces.surroundings import (
            with_surroundings,
        )  # with SciPy, which takes its time to import

        faces = _as_batch(images)
        size = (faces.shape[2], faces.shape[3])
        offset = torch.tensor(self.label_offset if as_labelled else (0.0, 0.0), dtype=torch.float64)
        found: list[FaceOutlines] = []
        for chunk in faces.split(_BATCH) if len(faces) else ():
            sketch = self.sketch(to_frame(chunk))
            plausible = (sketch.logits > 0) & (sketch.distances <= sketch.distances.new_tensor(self.reach))
            values = (
                from_frame(sketch.points.double().cpu() + offset, size).numpy(),
                plausible.tolist(),
                sketch.logits.sigmoid().tolist(),
                sketch.distances.tolist(),
            )
            pixels = chunk.permute(0, 2, 3, 1).cpu().numpy()
            for image, points, good, score, distance in zip(pixels, *values, strict=True):
                regions = template_regions(size)
                if good:
                    regions = with_surroundings(mesh_regions(points, self.features, size), image)
                found.append(FaceOutlines(regions, good, points, score, distance))
        return found

    @property
    def reach(self) -> float:
        """Greatest distance of a plausible shape from the mean."""
        return float(self.network.reach)

    def sketch(self, frames: Tensor) -> Sketch:
        """What the network draws of faces and of their mirror images, on average."""
        network = self._network_on(frames.device)
        own, mirrored = zip(*(v.chunk(2) for v in network(torch.cat([frames, frames.flip(3)]))), strict=True)
        points = mirrored[0][:, self._mirror] * frames.new_tensor([-1, 1]) + frames.new_tensor(
            [FRAME_SIDE - 1, 0]
        )
        return Sketch(*((a + b) / 2 for a, b in zip(own, (points, *mirrored[1:]), strict=True)))

    @cached_property
    def _mirror(self) -> Tensor:
        return mirror_order(self.network.mean[None])

    @cached_property
    def _fast(self) -> nn.Module:
        """The network with BatchNorm folded in: the same sketches, but for rounding, in two thirds of the time."""
        from xfr_plugin.base.folding import batchnorm_folded  # what traces takes its time to import

        return batchnorm_folded(self.network)

    def _network_on(self, device: torch.device) -> nn.Module:
        """The network, or a copy on another device: this one stays where it is."""
        if self.network.mean.device == device:
            return self._fast
        return copy.deepcopy(self._fast).to(device)


def find_regions(images: Tensor | NDArray[np.uint8]) -> list[RegionMap]:
    """Find the named regions of aligned faces.

    Where no outlines are found (see `FaceOutlines`), these are the template's; `find_outlines` says so.

    Args:
        images: see `find_outlines`.

    Returns:
        A region map of the images' size for each.

    Raises:
        InputError: the images are of another form.
    """
    return [face.regions for face in find_outlines(images)]


def find_outlines(images: Tensor | NDArray[np.uint8], *, as_labelled: bool = False) -> list[FaceOutlines]:
    """Find the outlines and the regions of aligned faces with the shipped outline finder.

    Args:
        images: RGB faces that follow `faces.template`, N×3×H×W in [0, 1], of any size and on any device; or one
            as H×W×3 of uint8.
        as_labelled: shift the outlines as the face meshes are that the finder was trained on: these lie about a
            pixel of the 112×112 crop to one side of the features. For comparisons with such meshes only.

    Raises:
        InputError: the images are of another form, or not finite.
    """
    return load_outline_finder()(images, as_labelled=as_labelled)


def load_outline_finder(path: str | os.PathLike[str] | None = None) -> Outliner:
    """Load an outline finder; the shipped one, if no path is given.

    Args:
        path: weight file.

    Raises:
        WeightsError: the file is missing, damaged, or no outline finder of ours.
        LayoutError: its weights do not fit the architecture it names.
    """
    return _shipped() if path is None else _load(path)


def save_outline_finder(
    network: OutlineFinder,
    path: str | os.PathLike[str],
    features: Mapping[str, Sequence[int]],
    label_offset: tuple[float, float],
    training: Mapping[str, Any],
) -> None:
    """Write an outline finder, whole or not at all: weights in half precision, with what is known about it."""
    state = halved(network, lambda name, _: name not in _SHAPE_MODEL)
    card = {
        "format": _FORMAT,
        "architecture": type(network).__name__,
        "points": network.points,
        "components": network.components,
        "width": network.width,
        "crop": f"grey, {FRAME_SIDE} pixels, ArcFace template; brightness and contrast taken out",
        "features": {name: list(numbers) for name, numbers in features.items()},
        "label_offset": list(label_offset),
        "training": dict(training),
    }
    write_weights(path, state, {_CARD_KEY: card})


def _load(path: str | os.PathLike[str]) -> Outliner:
    name = os.path.basename(path)
    state, metadata = read_weights(path)
    card = metadata.get(_CARD_KEY)
    if not isinstance(card, dict) or card.get("format") != _FORMAT:
        raise WeightsError(
            f"{name} is no outline finder that this version reads: train one with `xfr train outlines`"
        )
    with seeded(0):  # a network is born with random weights
        network = OutlineFinder(*(_size(card, key, name) for key in ("points", "components", "width")))
    load_halved_into(network, state, name)
    features = _checked_features(card.get("features"), network.points, name)
    if missing := _FEATURES - features.keys():
        raise WeightsError(
            f"{name} is of an earlier version and does not find {', '.join(sorted(missing))}: train one with "
            "`xfr train outlines`"
        )
    return Outliner(network, features, _checked_offset(card.get("label_offset"), name), card)


def _size(card: Mapping[str, Any], key: str, name: str) -> int:
    size = card.get(key)
    if not isinstance(size, int) or not 0 < size <= _MOST:
        raise WeightsError(f"{name} names an impossible number of {key} ({size!r}): get the file again")
    return size


def _checked_features(features: Any, points: int, name: str) -> dict[str, list[int]]:
    if not isinstance(features, dict) or not all(
        isinstance(number, int) and 0 <= number < points
        for numbers in features.values()
        for number in numbers
    ):
        raise WeightsError(f"{name} does not say which points outline which feature: get the file again")
    return dict(features)


def _checked_offset(offset: Any, name: str) -> tuple[float, float]:
    if not isinstance(offset, list) or not [isinstance(v, float) for v in offset] == [True, True]:
        raise WeightsError(f"{name} does not say how its labels are shifted: get the file again")
    return offset[0], offset[1]


@cache
def _shipped() -> Outliner:
    return _load(MODELS / "outlines.safetensors")


def _as_batch(images: Tensor | NDArray[np.uint8]) -> Tensor:
    """Check images and bring them to N×3×H×W in float32."""
    if isinstance(images, np.ndarray):
        if images.ndim != 3 or images.shape[2] != 3 or images.dtype != np.uint8 or not images.size:
            raise InputError(f"an aligned face is H×W×3 of uint8, got {images.dtype} of shape {images.shape}")
        return torch.from_numpy(np.ascontiguousarray(images)).permute(2, 0, 1)[None].float() / 255
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(
            f"aligned faces are N×3×H×W of numbers in [0, 1], got {images.dtype} of shape {tuple(images.shape)}"
        )
    if min(images.shape[2:]) < 1 or not images.isfinite().all():
        raise InputError("aligned faces must be finite and not empty")
    return images.detach().float()
