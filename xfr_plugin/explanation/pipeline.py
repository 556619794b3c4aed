"""From photos to the decision and its reasons, a batch at a time.

    photos → aligned faces → embeddings and feature maps → decision → named regions → attribution → check

`verify`, `explain`, `compare` and `match_regions` are this with a batch of one pair, the service is this with a batch
of many. Stages take and return values that nobody changes afterwards, and what one stage has computed goes along, so
that no later one computes it again.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin._version import __version__
from xfr_plugin.attr._base.prepared import Prepared, StandardErrors, pixel_maps
from xfr_plugin.base.devices import check_device
from xfr_plugin.base.files import shown
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.errors import FaceError, FaceWarning, InputError, PhotoError
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, region_evidence
from xfr_plugin.explanation.faithfulness import Faithfulness, PairEffects, pair_effects
from xfr_plugin.explanation.gate import explained
from xfr_plugin.explanation.quality import (
    MISALIGNED,
    Caution,
    copy_cautions,
    decision_cautions,
    face_cautions,
    misalignment,
)
from xfr_plugin.explanation.verification import Verification, decide
from xfr_plugin.faces import AlignedFace, Alignment, Detector, PhotoSource, RegionMap, prepare_face
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition import Calibration, Recognizer, load_recognizer
from xfr_plugin.recognition.features import extract

if TYPE_CHECKING:
    from xfr_plugin.attr._base.pair import PairAttribution
    from xfr_plugin.attr.registry import Method

__all__ = [
    "SIDES",
    "Face",
    "FacePair",
    "PairMaps",
    "RecognizerSource",
    "Side",
    "attribute_pairs",
    "check_pair",
    "decide_pair",
    "embed_faces",
    "explanation_of",
    "find_pair_regions",
    "measure_pair",
    "open_pair",
    "open_recognizer",
    "timed",
]

RecognizerSource: TypeAlias = str | os.PathLike[str] | Recognizer
"""A recognizer, or what `load_recognizer` takes: a name of the zoo, a weight file, a URL with checksum."""

Side: TypeAlias = Literal["probe", "reference"]
"""A side of a pair."""

SIDES: tuple[Side, Side] = ("probe", "reference")
"""Both, in order."""


@dataclass(frozen=True, eq=False)
class Face:
    """One side of a pair: a face, or a stored embedding, of which there is nothing else.

    Attributes:
        unit: embedding of unit length, D; of a recognizer that gives scores only, what it compares: the image.
        image: as the recognizer takes it, 3×H×W in [0, 1].
        aligned: the face that was found in the photo.
        maps: feature maps C×h×w by name of the layer, of those that were to be kept.
        regions: its own named regions, once they were looked for; the template's where none are found.
    """

    unit: Tensor
    image: Tensor | None = None
    aligned: AlignedFace | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    regions: RegionMap | None = None


@dataclass(frozen=True, eq=False)
class FacePair:
    """Two faces and the decision on them, ready for any number of attributions.

    Attributes:
        faces: probe and reference.
        verification: the decision.
        doubts: what may make the decision less reliable, whatever the photos are.
        calibration: of the recognizer, if it has one.
    """

    faces: tuple[Face, Face]
    verification: Verification
    doubts: tuple[Caution, ...] = ()
    calibration: Calibration | None = None

    @property
    def images(self) -> Tensor:
        """Images of both, 2×3×H×W; stored embeddings have none."""
        return _stacked([face.image for face in self.faces if face.image is not None])

    @property
    def pixels(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Aligned faces of two photos, H×W×3, 0…255."""
        probe, reference = (face.aligned.image for face in self.faces if face.aligned is not None)
        return probe, reference

    def cautions(self) -> tuple[Caution, ...]:
        """What may make the answer less reliable."""
        named = [(name, face.aligned) for name, face in zip(SIDES, self.faces, strict=True) if face.aligned]
        copies = copy_cautions(*(face for _, face in named)) if len(named) == 2 else ()
        return (*(one for name, face in named for one in face_cautions(name, face)), *copies, *self.doubts)

    def notes(self) -> tuple[str, ...]:
        """The same in words, and shorter of crops."""
        cautions = self.cautions()
        notes = [str(caution) for caution in cautions if caution.code != "taken_as_aligned"]
        taken = [caution.face or "" for caution in cautions if caution.code == "taken_as_aligned"]
        if taken:
            notes.append(f"{' and '.join(taken)} taken as already aligned")
        return tuple(notes)


@dataclass(frozen=True, eq=False)
class PairMaps:
    """What an attribution says of a pair.

    Attributes:
        sides: signed maps H×W of probe and reference; None for a side that the method cannot explain.
        errors: standard errors of the evidence of each face's own regions, where the method has them.
    """

    sides: tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]
    errors: StandardErrors | None = None


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


def open_pair(
    recognizer: Recognizer,
    photos: Sequence[PhotoSource],
    faces: Sequence[int],
    detector: Detector | None,
    alignment: Alignment,
    threshold: tuple[float, str],
    timings: dict[str, float] | None = None,
    layers: Sequence[str] = (),
) -> FacePair:
    """Find the faces of two photos, embed and compare them.

    Args:
        recognizer: whose score it is.
        photos: probe and reference; for these and what follows, see `faces.prepare_face`.
        faces: which face of each photo.
        detector: finds the faces.
        alignment: of the photos.
        threshold: see `decide_pair`.
        timings: to which the seconds of `faces` and `verify` are added.
        layers: see `embed_faces`.

    Raises:
        PhotoError, FaceError: a photo or its face cannot be used; the message begins with which.

    Warns:
        FaceWarning: see `quality`; of crops that were not called aligned, too.
    """
    timings = {} if timings is None else timings
    numbers = [face for face in faces if isinstance(face, Integral)] if isinstance(faces, Sequence) else []
    if len(numbers) != 2 or len(faces) != 2:
        raise InputError(f"faces are two numbers, which face of each photo, got {faces!r}")
    with timed(timings, "faces"):
        aligned = []
        for side, photo, face in zip(SIDES, photos, faces, strict=True):
            with _naming(side, photo), ignoring(FaceWarning):  # they are raised below, and say which photo
                aligned.append(
                    prepare_face(
                        photo, recognizer.input_size, detector=detector, alignment=alignment, face=face
                    )
                )
    with timed(timings, "verify"):
        probe, reference = embed_faces(recognizer, aligned, layers)
        pair = decide_pair(recognizer, (probe, reference), threshold)
    _warn(pair.cautions(), photos, aligned, alignment)
    return pair


@contextmanager
def _naming(side: Side, photo: PhotoSource) -> Iterator[None]:
    """Say which photo it is that cannot be used."""
    try:
        yield
    except (PhotoError, FaceError) as error:
        ours = next(kind for kind in type(error).__mro__ if kind.__module__ == PhotoError.__module__)
        raise ours(f"{_named(side, photo, isinstance(error, FaceError))}: {error}") from error


def _named(side: Side, photo: PhotoSource, with_path: bool = True) -> str:
    if with_path and isinstance(photo, (str, os.PathLike)):
        return f"{side} {shown(photo)}"
    return side


def _warn(
    cautions: Sequence[Caution],
    photos: Sequence[PhotoSource],
    aligned: Sequence[AlignedFace],
    alignment: Alignment,
) -> None:
    """Warn of all but thresholds; of a crop only if nobody called it one, and it seems to be none."""
    for caution in cautions:
        place = SIDES.index(caution.face or "probe")
        name = "" if caution.face is None else f"{_named(caution.face, photos[place])}: "
        if caution.code not in ("taken_as_aligned", "out_of_calibration", "same_picture"):
            warnings.warn(f"{name}{caution.message}", FaceWarning, stacklevel=4)
        if caution.code == "taken_as_aligned" and alignment == "auto":
            distance = misalignment(aligned[place].image)
            if distance is None or distance > MISALIGNED:
                where = "no face is found in it" if distance is None else "its face lies elsewhere"
                words = f"{name}{caution.message} for its size, but {where}: say whether it is one"
                warnings.warn(f"{words} (alignment 'detect' or 'aligned')", FaceWarning, stacklevel=4)


def embed_faces(
    recognizer: Recognizer, aligned: Sequence[AlignedFace], layers: Sequence[str] = ()
) -> list[Face]:
    """Embed faces in one pass, and keep the feature maps of these layers of the recognizer's network.

    Without layers the fastest runtime does it that there is, see `recognition.backends`.
    """
    stacked = np.stack([face.image for face in aligned]).transpose(0, 3, 1, 2)
    images = torch.from_numpy(stacked / 255).to(recognizer.device, recognizer.dtype)
    if not layers or recognizer.gives != "gradient":
        recognizer.check(images)  # before it may be copied: else every copy would test itself
        rows = recognizer.for_forward_passes(len(images)).represent(images)
        return [Face(row, image, face) for row, image, face in zip(rows, images, aligned, strict=True)]
    features = extract(recognizer, images, layers)
    kept = dict(zip(layers, features.maps, strict=True))
    return [
        Face(unit, image, face, {name: maps[place] for name, maps in kept.items()})
        for place, (unit, image, face) in enumerate(zip(features.embeddings, images, aligned, strict=True))
    ]


def decide_pair(
    recognizer: Recognizer, faces: tuple[Face, Face], threshold: tuple[float, str], score: float | None = None
) -> FacePair:
    """Decide on a pair.

    Args:
        recognizer: whose score it is.
        faces: probe and reference.
        threshold: to decide at, and where it comes from, see `verification.choose_threshold`.
        score: cosine of the embeddings, if it is known.

    Raises:
        InputError: the score is NaN, so the network does not work on these faces.
    """
    if score is None and recognizer.gives == "scores":
        score = float(recognizer.compare(faces[0].unit[None], faces[1].unit[None]))
    elif score is None:
        score = float(faces[0].unit.double() @ faces[1].unit.double())
    made = decide(recognizer, score, *threshold)
    return FacePair(faces, made, tuple(decision_cautions(made, recognizer)), recognizer.calibration)


def find_pair_regions(pairs: Sequence[FacePair]) -> list[FacePair]:
    """Find the named regions of all faces that are images, in one batch, each once."""
    images = {face: face.image for pair in pairs for face in pair.faces if face.image is not None}
    regions = find_regions(torch.stack(list(images.values()))) if images else ()
    found = {face: replace(face, regions=own) for face, own in zip(images, regions, strict=True)}
    return [
        replace(
            pair, faces=(found.get(pair.faces[0], pair.faces[0]), found.get(pair.faces[1], pair.faces[1]))
        )
        for pair in pairs
    ]


def attribute_pairs(
    attribution: PairAttribution, pairs: Sequence[FacePair], *, errors: bool = False
) -> list[PairMaps]:
    """Explain pairs in the same passes; all of them must have an image on the same sides.

    Maps that are no more than rounding come back as zeros, see `explanation.gate`.

    Args:
        attribution: that explains.
        pairs: at least one.
        errors: also say how sure the evidence by region is, where the method can.

    Raises:
        ExplanationError: what the method made of them is no evidence.
        InputError: the method cannot explain such pairs.
    """
    probes, references = (
        _prepared(faces, attribution.layers) for faces in zip(*(pair.faces for pair in pairs), strict=True)
    )
    found = explained(attribution, probes, references, errors=errors)
    maps = (_as_maps(side, len(pairs)) for side in (found.probes, found.references))
    known = found.errors or (None,) * len(pairs)
    return [PairMaps(sides, own) for sides, own in zip(zip(*maps, strict=True), known, strict=True)]


def explanation_of(
    pair: FacePair,
    maps: PairMaps,
    method: Method,
    options: Mapping[str, Any],
    regions: RegionMap | None,
    timings: Mapping[str, float],
) -> Explanation:
    """Put the maps of a method into words and numbers by region.

    Args:
        pair: two images, with their regions unless `regions` are given.
        maps: of both faces.
        method: that made the maps.
        options: that were given to it.
        regions: named regions of both faces; each face's own, if None.
        timings: seconds by stage.
    """
    errors = (None, None) if maps.errors is None or regions is not None else maps.errors
    probe, reference = (
        _face_explanation(image, values, regions or face.regions, error)
        for image, values, face, error in zip(pair.pixels, maps.sides, pair.faces, errors, strict=True)
    )
    return Explanation(
        verification=pair.verification,
        probe=probe,
        reference=reference,
        method=method.name,
        options={**method.options(), **options},
        timings=dict(timings),
        notes=(*pair.notes(), *_nothing(method, maps), f"{method.name}: {method.caveat}"),
        version=__version__,
        calibration=pair.calibration,
    )


def check_pair(
    recognizer: Recognizer, pair: FacePair, maps: PairMaps, effects: PairEffects | None = None
) -> Faithfulness:
    """Test whether the score follows what the maps say; see `faithfulness.check_faithfulness`.

    Args:
        recognizer: whose score is explained.
        pair: that is explained.
        maps: of both faces.
        effects: what was measured of the pair before, for maps of another method.

    Raises:
        InputError: neither side is an image, so that there is nothing to change.
    """
    tested = [
        values
        for face, values in zip(pair.faces, maps.sides, strict=True)
        if face.image is not None and values is not None
    ]
    return (effects or measure_pair(recognizer, pair)).judge(tested, pair.verification.threshold)


def measure_pair(recognizer: Recognizer, pair: FacePair) -> PairEffects:
    """What replacing regions does to a pair's score; see `faithfulness.pair_effects`.

    Raises:
        InputError: neither side is an image, so that there is nothing to change.
    """
    first, second = _changeable(pair)
    inputs = [face.unit if face.image is None else face.image[None] for face in (first, second)]
    regions = [
        face.regions or template_regions(recognizer.input_size)
        for face in (first, second)
        if face.image is not None
    ]
    return pair_effects(recognizer, (inputs[0], inputs[1]), regions=regions)


def _changeable(pair: FacePair) -> tuple[Face, Face]:
    """The faces of a pair, one that is an image first."""
    first, second = pair.faces
    if first.image is None and second.image is None:
        raise InputError("faithfulness is checked by changing images, and there is none")
    return (second, first) if first.image is None else (first, second)


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Write the seconds that the block takes into `timings`."""
    start = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - start


def _prepared(faces: Sequence[Face], layers: Sequence[str]) -> Prepared:
    """One side of many pairs as an attribution takes it."""
    images = [face.image for face in faces if face.image is not None]
    regions = [face.regions for face in faces if face.regions is not None]
    kept = [layer for layer in layers if all(layer in face.maps for face in faces)]
    return Prepared(
        images=_stacked(images) if images else None,
        units=torch.stack([face.unit for face in faces]),
        maps={layer: torch.stack([face.maps[layer] for face in faces]) for layer in kept},
        regions=regions if len(regions) == len(faces) else None,
    )


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """Images N×3×H×W as they come from photos, colours innermost, which networks take less time for."""
    return torch.stack(list(images)).contiguous(memory_format=torch.channels_last)


def _as_maps(maps: Tensor | None, count: int) -> Sequence[NDArray[np.float32] | None]:
    """Maps N×C×H×W, summed over colours, as N arrays H×W."""
    if maps is None:
        return [None] * count
    return list(pixel_maps(maps))


def _nothing(method: Method, maps: PairMaps) -> tuple[str, ...]:
    empty = [
        side
        for side, values in zip(SIDES, maps.sides, strict=True)
        if values is not None and not values.any()
    ]
    if not empty:
        return ()
    return (
        f"{method.name}: nothing to explain in the {' and the '.join(empty)}: the map is zero within rounding",
    )


def _face_explanation(
    image: NDArray[np.uint8],
    saliency: NDArray[np.float32] | None,
    regions: RegionMap | None,
    errors: Mapping[str, float] | None,
) -> FaceExplanation:
    assert saliency is not None  # every method explains both of two images
    assert regions is not None  # given or found
    return FaceExplanation(image, saliency, region_evidence(saliency, regions, errors), regions)
