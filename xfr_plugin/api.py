"""One call from two photos to the decision and its reasons."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from xfr_plugin._version import __version__
from xfr_plugin.attr import get_method
from xfr_plugin.attr.registry import DEFAULT_METHOD
from xfr_plugin.errors import InputError
from xfr_plugin.explanation import Explanation, FaceExplanation, region_evidence
from xfr_plugin.faces import (
    AlignedFace,
    Alignment,
    Detector,
    PhotoSource,
    RegionMap,
    prepare_face,
    template_regions,
)
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import check_device
from xfr_plugin.verification import Verification, choose_threshold, decide

__all__ = ["DEFAULT_RECOGNIZER", "RecognizerSource", "explain", "verify"]

DEFAULT_RECOGNIZER = "xfr_compact128"
"""The recognizer that ships with the package; see docs/models."""

RecognizerSource: TypeAlias = str | os.PathLike[str] | Recognizer
"""A recognizer, or what `load_recognizer` takes: a name of the zoo, a weight file, a URL with checksum."""


def verify(
    photo_a: PhotoSource,
    photo_b: PhotoSource,
    *,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    threshold: float | None = None,
    fmr: float | None = None,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    faces: tuple[int, int] = (0, 0),
    device: str | torch.device | None = None,
) -> Verification:
    """Decide whether two photos show the same person.

    Args:
        photo_a: the probe: a path, encoded bytes, a PIL image or an array.
        photo_b: the reference.
        recognizer: see `RecognizerSource`.
        threshold: cosine at and above which the pair is a match; the recognizer's own, if left out.
        fmr: or a false match rate (0…1) that the recognizer is calibrated for.
        detector: finds faces and landmarks, see `faces.Detector`; the shipped one, if left out.
        alignment: `detect`, `aligned` (the photos are aligned crops), or `auto`, see `faces.Alignment`.
        faces: which face of each photo, 0 being the largest.
        device: where to compute; where a given `Recognizer` is, or the CPU, if left out.

    Raises:
        PhotoError, FaceError: a photo or its face cannot be used.
        WeightsError: the recognizer's weights cannot be used.
        InputError: an argument makes no sense.

    Warns:
        FaceWarning: several faces, or a tiny one.
    """
    model = _recognizer(recognizer, device)
    chosen, source = choose_threshold(model, threshold, fmr)
    pair = _prepare((photo_a, photo_b), faces, model, detector, alignment)
    return decide(model, _score(model, _to_tensors(pair, model)), chosen, source)


def explain(
    photo_a: PhotoSource,
    photo_b: PhotoSource,
    *,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    method: str = DEFAULT_METHOD,
    options: Mapping[str, Any] | None = None,
    threshold: float | None = None,
    fmr: float | None = None,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    faces: tuple[int, int] = (0, 0),
    regions: RegionMap | None = None,
    device: str | torch.device | None = None,
) -> Explanation:
    """Decide whether two photos show the same person, and show which regions argue for it and against it.

    Args:
        photo_a: the probe: a path, encoded bytes, a PIL image or an array.
        photo_b: the reference.
        recognizer: see `RecognizerSource`.
        method: name of an attribution method, see `attr.METHODS`.
        options: options of the method, by name.
        threshold: see `verify`.
        fmr: see `verify`.
        detector: see `verify`.
        alignment: see `verify`.
        faces: see `verify`.
        regions: named regions of both aligned faces; those of the template, if left out.
        device: see `verify`.

    Raises:
        PhotoError, FaceError: a photo or its face cannot be used.
        WeightsError: the recognizer's weights cannot be used.
        InputError: an argument makes no sense; `UnknownNameError` for a method or option that does not exist.

    Warns:
        FaceWarning: several faces, or a tiny one.
    """
    timings: dict[str, float] = {}
    entry, given = get_method(method), dict(options or {})
    with _timed(timings, "load"):
        model = _recognizer(recognizer, device)
        chosen, source = choose_threshold(model, threshold, fmr)
        attribution = entry.build(model, chosen, **given)
    with _timed(timings, "faces"):
        pair = _prepare((photo_a, photo_b), faces, model, detector, alignment)
    with _timed(timings, "verify"):
        images = _to_tensors(pair, model)
        verification = decide(model, _score(model, images), chosen, source)
    with _timed(timings, "explain"):
        maps = attribution.attribute((images[:1], images[1:]))
    labels = regions or template_regions(model.input_size)
    sides = [_face_explanation(face, side, labels) for face, side in zip(pair, maps, strict=True)]
    return Explanation(
        verification=verification,
        probe=sides[0],
        reference=sides[1],
        method=method,
        options={**entry.options(), **given},
        timings=timings,
        notes=(*_notes(pair), f"{method}: {entry.caveat}"),
        version=__version__,
    )


def _recognizer(source: RecognizerSource, device: str | torch.device | None) -> Recognizer:
    if not isinstance(source, Recognizer):
        return load_recognizer(source, device=device or "cpu")
    if device is not None and check_device(device) != source.device:
        raise InputError(f"the recognizer is on {source.device}: move it with .to({str(device)!r}) first")
    return source


def _prepare(
    photos: tuple[PhotoSource, PhotoSource],
    faces: tuple[int, int],
    recognizer: Recognizer,
    detector: Detector | None,
    alignment: Alignment,
) -> list[AlignedFace]:
    return [
        prepare_face(photo, recognizer.input_size, detector=detector, alignment=alignment, face=face)
        for photo, face in zip(photos, faces, strict=True)
    ]


def _to_tensors(pair: list[AlignedFace], recognizer: Recognizer) -> Tensor:
    """Images of a pair, 2×3×H×W in [0, 1], where the recognizer computes."""
    stacked = np.stack([face.image for face in pair]).transpose(0, 3, 1, 2)
    return torch.from_numpy(stacked / 255).to(recognizer.device, recognizer.dtype)


def _score(recognizer: Recognizer, images: Tensor) -> float:
    probe, reference = recognizer.embed(images)
    return float(probe @ reference)


def _face_explanation(face: AlignedFace, maps: Tensor, regions: RegionMap) -> FaceExplanation:
    saliency = maps[0].sum(dim=0).float().cpu().numpy()
    return FaceExplanation(face.image, saliency, region_evidence(saliency, regions))


def _notes(pair: list[AlignedFace]) -> tuple[str, ...]:
    names = ("probe", "reference")
    notes = [f"{name}: {note}" for name, face in zip(names, pair, strict=True) for note in face.notes]
    taken = [name for name, face in zip(names, pair, strict=True) if face.detected is None]
    if taken:
        notes.append(f"{' and '.join(taken)} taken as already aligned")
    return tuple(notes)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - start
