"""The answer to "why": signed maps of both faces, evidence by region, and how they were made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xfr_plugin.base.documents import Document
from xfr_plugin.base.equality import ArraysCompared
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.explanation.faithfulness import Faithfulness
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from PIL.Image import Image

__all__ = [
    "Explanation",
    "FaceExplanation",
    "RegionEvidence",
    "ratio_shares",
    "region_evidence",
]


_ADDS_UP = 0.01
"""Of a cosine: how far the sum of the evidence may lie off the margin."""


class RegionEvidence(Document):
    """Evidence of one named region of a face, in the units of the method.

    Attributes:
        region: name.
        pixels: area.
        evidence: sum of the signed map; over all regions these add up to the map's total.
        similar: sum of its positive part.
        dissimilar: sum of its negative part, as a positive number.
        error: standard error of the evidence, from resampling; None where the method has none.
    """

    region: str
    pixels: int
    evidence: float
    similar: float
    dissimilar: float
    error: float | None = Field(default=None, ge=0)


@dataclass(frozen=True, eq=False, repr=False)
class FaceExplanation(ArraysCompared):
    """One face of an explained pair.

    Attributes:
        image: aligned face, H×W×3, 0…255.
        saliency: signed map, H×W: positive pixels argue for a match, negative ones against.
        regions: evidence by named region, in the order of the region map.
        region_map: where the regions lie.
    """

    image: NDArray[np.uint8]
    saliency: NDArray[np.float32]
    regions: tuple[RegionEvidence, ...]
    region_map: RegionMap

    def __post_init__(self) -> None:
        if self.image.shape != (*self.saliency.shape, 3):
            raise InputError(f"face {self.image.shape} and map {self.saliency.shape} are of different sizes")

    def __repr__(self) -> str:
        height, width = self.saliency.shape
        return f"FaceExplanation({height}×{width}, {len(self.regions)} regions)"

    @property
    def similar(self) -> NDArray[np.float32]:
        """Positive part of the map, H×W, ≥ 0."""
        return np.maximum(self.saliency, 0)

    @property
    def dissimilar(self) -> NDArray[np.float32]:
        """Negative part of the map, H×W, ≥ 0."""
        return np.maximum(-self.saliency, 0)


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(ArraysCompared):
    """Why a pair was decided as it was.

    Attributes:
        verification: the decision that is explained.
        probe: the first face.
        reference: the second face.
        method: name of the attribution method.
        options: all options of the method.
        timings: seconds by stage.
        notes: what may make the answer less reliable, in words.
        version: of this package.
        faithfulness: whether the score follows what the maps point at; None if it was not checked.
        calibration: of the recognizer, if it is calibrated: how scores lie, and what they mean.
    """

    verification: Verification
    probe: FaceExplanation
    reference: FaceExplanation
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    version: str = ""
    faithfulness: Faithfulness | None = None
    calibration: Calibration | None = None

    def __repr__(self) -> str:
        decision = self.verification
        said = f"{'match' if decision.match else 'no match'}, score {decision.score:.3f}"
        return f"Explanation({said}, threshold {decision.threshold:.3f}, by {self.method})"

    def _repr_html_(self) -> str:
        from xfr_plugin.explanation.notebooks import (
            explanation_html,
        )  # builds on this module, as do the others

        return explanation_html(self)

    def _repr_png_(self) -> bytes:
        from xfr_plugin.explanation.figures.explanation import explanation_png

        return explanation_png(self)

    def words(self) -> tuple[str, ...]:
        """The decision and its reasons in sentences."""
        from xfr_plugin.explanation.words import explanation_in_words

        return explanation_in_words(self)

    def picture(self) -> Image:
        """The picture, see `figures.explanation`, as a Pillow image."""
        from xfr_plugin.explanation.figures.explanation import explanation_picture

        return explanation_picture(self)

    def figure(self) -> Figure:
        """The picture as a Matplotlib figure."""
        from xfr_plugin.explanation.figures.explanation import explanation_figure

        return explanation_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        from xfr_plugin.explanation.document import to_document

        return to_document(self).model_dump(mode="json")

    def to_dataframe(self) -> DataFrame:
        """A pandas table, a row for each face and region.

        Raises:
            InputError: pandas is not installed.
        """
        from xfr_plugin.explanation.notebooks import explanation_frame

        return explanation_frame(self)

    def save(self, folder: str | os.PathLike[str], stem: str = "explanation") -> tuple[Path, Path]:
        """Write `<stem>.png`, the picture, and `<stem>.json`, everything; each whole or not at all.

        Returns:
            The paths of the picture and of the document.

        Raises:
            ResultError: the folder cannot be written to.
        """
        from xfr_plugin.explanation.document import write_explanation  # report builds on this module

        return write_explanation(self, Path(folder), stem)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Explanation:
        """Read the document of a saved explanation.

        Raises:
            ResultError: missing, damaged, or not a document of ours.
        """
        from xfr_plugin.explanation.document import read_explanation

        return read_explanation(Path(path))


def region_evidence(
    saliency: NDArray[np.float32], regions: RegionMap, errors: Mapping[str, float] | None = None
) -> tuple[RegionEvidence, ...]:
    """Sum a signed map H×W over each region of a region map of the same size.

    Args:
        saliency: signed map, H×W.
        regions: of the same size.
        errors: standard errors by region, for those that have one.

    Raises:
        InputError: map and regions are of different sizes; `UnknownNameError` for the error of another region.
    """
    known = errors or {}
    for name in known:
        if name not in regions.names:
            raise UnknownNameError.of("region with an error", name, regions.names)
    areas = regions.areas()
    total = regions.totals(saliency)
    similar = regions.totals(np.maximum(saliency, 0))
    dissimilar = regions.totals(np.maximum(-saliency, 0))
    return tuple(
        RegionEvidence(
            region=name,
            pixels=areas[name],
            evidence=total[name],
            similar=similar[name],
            dissimilar=dissimilar[name],
            error=known.get(name),
        )
        for name in regions.names
    )


def ratio_shares(explanation: Explanation) -> tuple[dict[str, float], dict[str, float]] | None:
    """Each region's share of the log10 likelihood ratio beyond that of the threshold; probe's and reference's.

    Only where the evidence of each face adds up to the margin, so that there is something to share, and the ratio is
    calibrated, bounded, and not at the same bound as that of the threshold. None elsewhere.
    """
    decision, known = explanation.verification, explanation.calibration
    at_threshold = known.strength(decision.threshold) if known else None
    if decision.strength is None or at_threshold is None or not decision.margin:
        return None
    sides = [
        {r.region: r.evidence for r in face.regions} for face in (explanation.probe, explanation.reference)
    ]
    if any(abs(sum(side.values()) - decision.margin) > _ADDS_UP for side in sides):
        return None
    beyond = decision.strength.log10_lr - at_threshold.log10_lr
    if not beyond:
        return None
    unit = beyond / decision.margin
    probe, reference = ({name: unit * value for name, value in side.items()} for side in sides)
    return probe, reference
