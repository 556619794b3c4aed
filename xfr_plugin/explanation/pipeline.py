"""From two photos to tensors and the decision: what every question about a pair starts with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from xfr_plugin._version import __version__
from xfr_plugin.base.devices import check_device
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, region_evidence
from xfr_plugin.explanation.faithfulness import check_faithfulness
from xfr_plugin.explanation.verification import Verification, choose_threshold, decide
from xfr_plugin.faces import (
    AlignedFace,
    Alignment,
    Detector,
    PhotoSource,
    RegionMap,
    prepare_face,
)
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer, load_recognizer

if TYPE_CHECKING:
    from xfr_plugin.attr._base.pair import Errors
    from xfr_plugin.attr.registry import Method

__all__ = [
    "PreparedPair",
    "RecognizerSource",
    "align_pair",
    "open_recognizer",
    "prepare_pair",
    "timed",
    "with_check",
]

RecognizerSource: TypeAlias = str | os.PathLike[str] | Recognizer
"""A recognizer, or what `load_recognizer` takes: a name of the zoo, a weight file, a URL with checksum."""


@dataclass(frozen=True)
class PreparedPair:
    """Two aligned faces and the decision on them, ready for any number of attributions.

    Attributes:
        faces: the probe and the reference.
        images: both as the recognizer takes them, 2×3×H×W in [0, 1].
        verification: the decision.
    """

    faces: tuple[AlignedFace, AlignedFace]
    images: Tensor
    verification: Verification

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Probe and reference, each 1×3×H×W, as attributions take them."""
        return self.images[:1], self.images[1:]

    @cached_property
    def regions(self) -> tuple[RegionMap, RegionMap]:
        """Named regions of both faces, each its own; the template's where none are found."""
        probe, reference = find_regions(self.images.clamp(0, 1))
        return probe, reference

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the aligned faces in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def notes(self) -> tuple[str, ...]:
        """What may make the answer less reliable, in words."""
        named = list(zip(("probe", "reference"), self.faces, strict=True))
        notes = [f"{name}: {note}" for name, face in named for note in face.notes]
        taken = [name for name, face in named if face.detected is None]
        if taken:
            notes.append(f"{' and '.join(taken)} taken as already aligned")
        return tuple(notes)

    def explanation(
        self,
        method: Method,
        options: Mapping[str, Any],
        maps: tuple[Tensor, Tensor],
        regions: RegionMap | None,
        timings: Mapping[str, float],
        errors: Errors | None = None,
    ) -> Explanation:
        """Put the maps of a method, each 1×3×H×W, into words and numbers by region.

        Args:
            method: that made the maps.
            options: that were given to it.
            maps: of probe and reference.
            regions: named regions of both faces; each face's own, if None.
            timings: seconds by stage.
            errors: standard errors of the evidence of each face's own regions, where the method has them.
        """
        labels = self.regions if regions is None else (regions, regions)
        known = (None, None) if errors is None or regions is not None else errors
        sides = [_face_explanation(*side) for side in zip(self.faces, maps, labels, known, strict=True)]
        return Explanation(
            verification=self.verification,
            probe=sides[0],
            reference=sides[1],
            method=method.name,
            options={**method.options(), **options},
            timings=dict(timings),
            notes=(*self.notes(), f"{method.name}: {method.caveat}"),
            version=__version__,
        )


def open_recognizer(source: RecognizerSource, device: str | torch.device | None) -> Recognizer:
    """Load a recognizer, or check that a loaded one is where it was asked for.

    Raises:
        WeightsError: its weights cannot be used.
        InputError: it is on another device.
    """
    if not isinstance(source, Recognizer):
        return load_recognizer(source, device=device or "cpu")
    if device is not None and check_device(device) != source.device:
        raise InputError(f"the recognizer is on {source.device}: move it with .to({str(device)!r}) first")
    return source


def align_pair(
    photos: tuple[PhotoSource, PhotoSource],
    faces: tuple[int, int],
    recognizer: Recognizer,
    detector: Detector | None,
    alignment: Alignment,
) -> tuple[AlignedFace, AlignedFace]:
    """Find and align the chosen face of each photo; see `faces.prepare_face` for arguments and errors."""
    probe, reference = (
        prepare_face(photo, recognizer.input_size, detector=detector, alignment=alignment, face=face)
        for photo, face in zip(photos, faces, strict=True)
    )
    return probe, reference


def prepare_pair(
    recognizer: Recognizer, faces: tuple[AlignedFace, AlignedFace], threshold: float | None, fmr: float | None
) -> PreparedPair:
    """Embed both faces, once, and decide on them."""
    chosen, source = choose_threshold(recognizer, threshold, fmr)
    stacked = np.stack([face.image for face in faces]).transpose(0, 3, 1, 2)
    images = torch.from_numpy(stacked / 255).to(recognizer.device, recognizer.dtype)
    probe, reference = recognizer.embed(images)
    return PreparedPair(faces, images, decide(recognizer, float(probe @ reference), chosen, source))


def with_check(
    explanation: Explanation, pair: PreparedPair, recognizer: Recognizer, regions: RegionMap | None
) -> Explanation:
    """Add the check of its faithfulness to an explanation of the pair; see `faithfulness.check_faithfulness`."""
    maps = explanation.probe.saliency, explanation.reference.saliency
    threshold = pair.verification.threshold
    found = check_faithfulness(recognizer, pair.inputs, maps, threshold, regions=regions)
    return replace(explanation, faithfulness=found)


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Write the seconds that the block takes into `timings`."""
    start = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - start


def _face_explanation(
    face: AlignedFace, maps: Tensor, regions: RegionMap, errors: Mapping[str, float] | None
) -> FaceExplanation:
    saliency = maps[0].sum(dim=0).float().cpu().numpy()
    return FaceExplanation(face.image, saliency, region_evidence(saliency, regions, errors))
