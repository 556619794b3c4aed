"""One call from two photos to the decision and its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from xfr_plugin.attr import get_method
from xfr_plugin.attr.registry import AUTO, chosen_method
from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.modes import own_modes
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.explanation.pipeline import (
    RecognizerSource,
    attribute_pairs,
    check_pair,
    explanation_of,
    find_pair_regions,
    open_pair,
    open_recognizer,
    timed,
)
from xfr_plugin.explanation.verification import Verification, choose_threshold
from xfr_plugin.faces import Alignment, Detector, PhotoSource, RegionMap
from xfr_plugin.recognition.fingerprint import fingerprints_kept

__all__ = ["DEFAULT_RECOGNIZER", "RecognizerSource", "explain", "verify"]


@own_modes()
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
    model = open_recognizer(recognizer, device)
    chosen = choose_threshold(model, threshold, fmr)  # a wrong one is an error before any face is looked for
    pair = open_pair(model, (photo_a, photo_b), faces, detector, alignment, chosen)
    return pair.verification


@own_modes()
def explain(
    photo_a: PhotoSource,
    photo_b: PhotoSource,
    *,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    method: str | None = AUTO,
    options: Mapping[str, Any] | None = None,
    threshold: float | None = None,
    fmr: float | None = None,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    faces: tuple[int, int] = (0, 0),
    regions: RegionMap | None = None,
    device: str | torch.device | None = None,
    check: bool = False,
) -> Explanation:
    """Decide whether two photos show the same person, and show which regions argue for it and against it.

    Args:
        photo_a, photo_b, recognizer, threshold, fmr, detector, alignment, faces, device: see `verify`.
        method: name of an attribution method, see `attr.METHODS`; `auto`, or None, for `attr.default_method`.
        options: options of the method, by name.
        regions: named regions of both aligned faces; each face's own (`faces.outlines`), if left out.
        check: also test whether the score follows what the maps say, see `faithfulness.check_faithfulness`; 66 more
            forward passes.

    Raises:
        UnknownNameError: a method or option does not exist; for other errors, and warnings, see `verify`.
    """
    timings: dict[str, float] = {}
    given = dict(options or {})
    if method not in (None, AUTO):
        get_method(method)  # a wrong name is an error before anything is loaded
    with timed(timings, "load"), fingerprints_kept():
        model = open_recognizer(recognizer, device)
        entry = chosen_method(method, model)
        chosen = choose_threshold(model, threshold, fmr)
        attribution = entry.build(model, chosen[0], **given)
    photos = (photo_a, photo_b)
    pair = open_pair(model, photos, faces, detector, alignment, chosen, timings, attribution.layers)
    with timed(timings, "explain"):
        if regions is None:
            (pair,) = find_pair_regions([pair])
        (maps,) = attribute_pairs(attribution, [pair], errors=True)
    explanation = explanation_of(pair, maps, entry, given, regions, timings)
    if not check:
        return explanation
    with timed(timings, "check"):
        found = check_pair(model, pair, maps)
    return replace(explanation, timings=timings, faithfulness=found)
