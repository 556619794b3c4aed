"""One call from two photos to what every pair of their regions brings to the score, by BiLRP or by Shapley values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.equality import ArraysCompared
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.options import checked_choice
from xfr_plugin.explanation.pipeline import FacePair, RecognizerSource, open_pair, open_recognizer
from xfr_plugin.explanation.verification import Verification, choose_threshold
from xfr_plugin.faces import Alignment, Detector, PhotoSource, RegionMap, template_regions
from xfr_plugin.lrp.attributors import unit_embeddings
from xfr_plugin.lrp.bilrp import normalized_factors, region_masks, specific_factors
from xfr_plugin.lrp.channel_relevance import ChannelRelevance
from xfr_plugin.lrp.choice import composite_name, kept_composite
from xfr_plugin.lrp.propagation import region_relevance
from xfr_plugin.recognition import Recognizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["RegionMatches", "match_regions"]


@dataclass(frozen=True, eq=False, repr=False)
class RegionMatches(ArraysCompared):
    """Which regions of two faces matched.

    Attributes:
        verification: the decision.
        images: aligned probe and reference, H×W×3, 0…255.
        regions: of both faces, P.
        relevance: P×P; entry (i, j) is what region i of the probe and region j of the reference add to the score
            together. By BiLRP the entries sum to the score, from channel maps normalised to 1, see `BiLRP`; by
            Shapley values to what `attr.interactions` says.
        specific: P×P, the part of `relevance` that a distribution common to all channels does not explain; rows and
            columns sum to 0. Shapley values have no such part: the same as `relevance`.
        self_match: strongest entry of `specific` inside the face when each face is matched with itself, mean of both:
            the measure of how strong a match between regions can be.
        conserved: sum of the relevance that reaches the pixels without that normalisation; what is missing to the
            score was absorbed by biases or lost by rules. By Shapley values the sum of the entries.
        composite: name of the rules; `shapley` by Shapley values.
        notes: what may make the answer less reliable, in words.
    """

    verification: Verification
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    regions: RegionMap
    relevance: NDArray[np.float64]
    specific: NDArray[np.float64]
    self_match: float
    conserved: float
    composite: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        count = len(self.regions.names)
        return f"RegionMatches({count}×{count} regions, score {self.verification.score:.3f})"

    def _repr_png_(self) -> bytes:
        from xfr_plugin.explanation.notebooks import figure_png

        return figure_png(self.figure())

    def figure(self) -> Figure:
        """Both faces, lines between their regions and the matrix, as a Matplotlib figure."""
        from xfr_plugin.explanation.figures.matches import matches_figure  # builds on this module

        return matches_figure(self)

    def to_dataframe(self) -> DataFrame:
        """A pandas table, a row for each pair of regions.

        Raises:
            InputError: pandas is not installed.
        """
        from xfr_plugin.explanation.notebooks import matches_frame

        return matches_frame(self)


@own_modes()
def match_regions(
    photo_a: PhotoSource,
    photo_b: PhotoSource,
    *,
    recognizer: RecognizerSource,
    by: Literal["bilrp", "shapley"] = "bilrp",
    composite: str = "auto",
    threshold: float | None = None,
    fmr: float | None = None,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    faces: tuple[int, int] = (0, 0),
    device: str | torch.device | None = None,
) -> RegionMatches:
    """Decide whether two photos show the same person, and show which regions matched.

    Args:
        by: `bilrp` needs a network whose layers have rules; `shapley` takes any that gives embeddings, a black box
            included, removes each face's own regions in some hundred coalitions, and takes about 1000 passes.
        photo_a, photo_b, recognizer, threshold, fmr, detector, alignment, faces, device: see `verify`.
        composite: of `bilrp`, see `lrp.choice.composite_for`.

    Raises:
        InputError: the network has no rules, or gives no embeddings; for other errors, and warnings, see `verify`.
    """
    model = open_recognizer(recognizer, device)
    chosen = choose_threshold(model, threshold, fmr)
    pair = open_pair(model, (photo_a, photo_b), faces, detector, alignment, chosen)
    regions = template_regions(model.input_size)
    if checked_choice("by", by, "bilrp", "shapley") == "shapley":
        return _by_shapley(model, pair, regions)
    pooled, units = _pooled(model, pair.images, regions, composite)
    normalized = normalized_factors(pooled, units)
    specific = specific_factors(normalized, units)
    of_face = specific[:, list(regions.of_face)]
    itself = of_face @ of_face.transpose(1, 2)
    return RegionMatches(
        verification=pair.verification,
        images=pair.pixels,
        regions=regions,
        relevance=_matrix(normalized),
        specific=_matrix(specific),
        self_match=float(itself.amax(dim=(1, 2)).mean()),
        conserved=float(_matrix(pooled).sum()),
        composite=composite_name(model, composite),
        notes=pair.notes(),
    )


def _by_shapley(recognizer: Recognizer, pair: FacePair, regions: RegionMap) -> RegionMatches:
    """The same by Shapley values; each face's match with itself is its effects with other donors."""
    from xfr_plugin.attr import PairShapley, interactions, region_effects  # Captum is slow to import

    game = PairShapley(recognizer, threshold=0.0, players="regions", donors=1)
    probe, reference = region_effects(game, pair.images)
    others = region_effects(game, pair.images, donors_from=game.donors)
    matrix: NDArray[np.float64] = interactions(probe, others[1]).double().cpu().numpy()
    of_face = list(regions.of_face)
    itself = [
        interactions(*both)[of_face][:, of_face] for both in zip((probe, reference), others, strict=True)
    ]
    return RegionMatches(
        verification=pair.verification,
        images=pair.pixels,
        regions=regions,
        relevance=matrix,
        specific=matrix,
        self_match=float(sum(own.max() for own in itself)) / 2,
        conserved=float(matrix.sum()),
        composite="shapley",
        notes=pair.notes(),
    )


def _pooled(
    recognizer: Recognizer, images: Tensor, regions: RegionMap, composite: str
) -> tuple[Tensor, Tensor]:
    """Relevance of each channel in each region, 2×P×D, and the unit embeddings, 2×D."""
    attributor = ChannelRelevance(recognizer.network, kept_composite(recognizer, composite))
    with attributor.propagation(recognizer.preprocess(images)) as propagation:
        units = unit_embeddings(propagation.output)
        masks = region_masks(regions, images)
        return region_relevance(propagation, masks, units, attributor.chunk_size), units


def _matrix(factors: Tensor) -> NDArray[np.float64]:
    """Relevance of pairs of regions, P×P, from factors 2×P×D."""
    matrix: NDArray[np.float64] = (factors[0] @ factors[1].T).double().cpu().numpy()
    return matrix
