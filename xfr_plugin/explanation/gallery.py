"""1:N: the best candidates of a gallery of stored embeddings, and what argues for each rather than for the next."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.registry import AUTO, chosen_method
from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import reason, shown
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.explanation import RegionEvidence, region_evidence
from xfr_plugin.explanation.pipeline import (
    Face,
    FacePair,
    PairMaps,
    RecognizerSource,
    attribute_pairs,
    decide_pair,
    embed_faces,
    find_pair_regions,
    open_recognizer,
)
from xfr_plugin.explanation.verification import Verification, choose_threshold
from xfr_plugin.faces import AlignedFace, Alignment, Detector, PhotoSource, prepare_face
from xfr_plugin.recognition.fingerprint import fingerprints_kept

if TYPE_CHECKING:
    from xfr_plugin.attr._base.pair import PairAttribution

__all__ = ["Candidate", "GallerySource", "contrast", "nearest", "search"]

GallerySource: TypeAlias = str | os.PathLike[str] | NDArray[Any]
"""Embeddings N×D of any length: an array, or the path of one that `numpy.save` wrote, which is mapped into memory."""

_ROWS = 1 << 15
_AT_ONCE = 8
_KEPT = 2**28
_DIGITS = 12
_SMALLEST = 1e-30


@dataclass(frozen=True, eq=False)
class Candidate:
    """An entry of a gallery, and what of the probe argues for it rather than for the next one.

    Attributes:
        index: its row in the gallery.
        verification: the decision on the probe and it.
        against: row of the next best one; None if the gallery has no other.
        lead: by how much its score is higher; None likewise.
        regions: what each region of the probe brings to the lead, in the units of the method; of methods whose
            evidence sums to the margin, these sum to the lead. Empty where there is no other.
        saliency: the map H×W that these are sums of; None likewise.
    """

    index: int
    verification: Verification
    against: int | None = None
    lead: float | None = None
    regions: tuple[RegionEvidence, ...] = ()
    saliency: NDArray[np.float32] | None = None


@own_modes()
def search(
    photo: PhotoSource,
    gallery: GallerySource,
    *,
    top: int = 10,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    method: str | None = AUTO,
    options: Mapping[str, Any] | None = None,
    threshold: float | None = None,
    fmr: float | None = None,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    face: int = 0,
    device: str | torch.device | None = None,
) -> tuple[AlignedFace, tuple[Candidate, ...]]:
    """Find the entries of a gallery that a photo is most like, and say of each why it and not the next.

    Args:
        photo: the probe, see `explain`.
        gallery: see `GallerySource`; rows that are zero, NaN or infinite are like no face, and never among the best.
        top: how many, at most.
        method: see `explain`; one that explains a face against a stored embedding.
        options, recognizer, threshold, fmr, detector, alignment, face, device: see `explain`.

    Returns:
        The probe's face, and the candidates, best first; equal ones in the order of the gallery.

    Raises:
        InputError: the gallery cannot be read, or its rows have another length than the recognizer's embeddings; the
            recognizer has none; for other errors see `explain`.

    Example:
        >>> face, (best, *others) = search("probe.jpg", "gallery.npy", top=100)  # doctest: +SKIP
    """
    checked_at_least("top", top, 1)
    given, stored = dict(options or {}), _opened(gallery)
    with fingerprints_kept():
        model = open_recognizer(recognizer, device)
        if model.gives == "scores":
            raise InputError(f"{model.name} compares images, and so has no stored embeddings to search")
        chosen = choose_threshold(model, threshold, fmr)
        entry = chosen_method(method, model)
        attribution = entry.build(model, chosen[0], **given)
        if isinstance(attribution, RegionIntervention):
            attribution.keep_effects(_KEPT)  # the probe is the same in all pairs
    aligned = prepare_face(photo, model.input_size, detector=detector, alignment=alignment, face=face)
    (probe,) = embed_faces(model, [aligned], attribution.layers)
    scores, rows = nearest(probe.unit.double().cpu().numpy(), stored, top + 1)
    units = torch.from_numpy(np.array(stored[rows], dtype=np.float64)).to(probe.unit)
    pairs = find_pair_regions(
        [
            decide_pair(
                model, (probe, Face(torch.nn.functional.normalize(unit, dim=0))), chosen, float(score)
            )
            for unit, score in zip(units, scores, strict=True)
        ]
    )
    maps = _maps(attribution, pairs, _AT_ONCE if entry.batchable else 1) if len(pairs) > 1 else []
    contrasts = [_contrasted(pair, *both) for pair, both in zip(pairs, pairwise(maps), strict=False)]
    found = [Candidate(int(row), pair.verification) for row, pair in zip(rows, pairs, strict=True)]
    for place, (regions, saliency) in enumerate(contrasts):
        lead = float(scores[place] - scores[place + 1])
        found[place] = replace(
            found[place], against=int(rows[place + 1]), lead=lead, regions=regions, saliency=saliency
        )
    return aligned, tuple(found[:top])


def _maps(attribution: PairAttribution, pairs: Sequence[FacePair], together: int) -> list[PairMaps]:
    starts = range(0, len(pairs), together)
    return [
        maps for start in starts for maps in attribute_pairs(attribution, pairs[start : start + together])
    ]


def _contrasted(
    pair: FacePair, own: PairMaps, other: PairMaps
) -> tuple[tuple[RegionEvidence, ...], NDArray[np.float32]]:
    saliency, regions = contrast(own, other).sides[0], pair.faces[0].regions
    assert saliency is not None  # the probe is an image
    assert regions is not None  # found
    return region_evidence(saliency, regions), saliency


def nearest(
    unit: NDArray[np.floating[Any]], gallery: NDArray[Any], top: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cosines of the `top` rows that are most like an embedding, and which rows these are; best first.

    All rows are compared, in 64 bits, some at a time. Equal scores keep the order of the gallery. Rows that are
    zero or not finite are left out.

    Raises:
        InputError: the gallery has another shape than N×D.
    """
    if gallery.ndim != 2 or gallery.dtype.kind not in "fiu" or gallery.shape[1] != len(unit):
        raise InputError(
            f"the gallery must be numbers N×{len(unit)}, got {gallery.dtype} {'×'.join(map(str, gallery.shape))}"
        )
    own, best, places = unit.astype(np.float64), np.empty(0), np.empty(0, dtype=np.int64)
    for start in range(0, len(gallery), _ROWS):
        found = _cosines(np.asarray(gallery[start : start + _ROWS], dtype=np.float64), own)
        better = np.flatnonzero(found > (best[-1] if len(best) == top else -np.inf))  # NaN is not
        best, places = np.concatenate((best, found[better])), np.concatenate((places, start + better))
        order = np.argsort(-best, kind="stable")[:top]
        best, places = best[order], places[order]
    return best, places


def contrast(own: PairMaps, other: PairMaps) -> PairMaps:
    """Map of the probe against a candidate, less that against the next one.

    There is a map of the probe only: candidates are embeddings.
    """
    if own.sides[0] is None or other.sides[0] is None:
        return PairMaps((None, None))
    return PairMaps((own.sides[0] - other.sides[0], None))


def _cosines(rows: NDArray[np.float64], unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines of rows with a unit embedding, NaN of those that have no direction; equal rows have equal ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        usable = np.isfinite(lengths) & (lengths > _SMALLEST)
        found = np.divide(rows @ unit, lengths, out=np.full(len(rows), np.nan), where=usable)
    rounded: NDArray[np.float64] = np.clip(np.round(found, _DIGITS), -1, 1)
    return rounded


def _opened(gallery: GallerySource) -> NDArray[Any]:
    if isinstance(gallery, np.ndarray):
        return gallery
    try:
        return np.lib.format.open_memmap(gallery, mode="r")
    except OSError as error:
        raise InputError(f"the gallery {shown(str(gallery))} cannot be read: {reason(error)}") from error
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f"the gallery {shown(str(gallery))} is no array that numpy.save wrote") from error
