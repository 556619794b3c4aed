"""One call from two photos to the relevance of every pair of their regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.explanation.pipeline import RecognizerSource, open_pair, open_recognizer
from xfr_plugin.explanation.verification import Verification, choose_threshold
from xfr_plugin.faces import Alignment, Detector, PhotoSource, RegionMap, template_regions
from xfr_plugin.lrp.attributors import unit_embeddings
from xfr_plugin.lrp.bilrp import normalized_factors, region_masks, specific_factors
from xfr_plugin.lrp.channel_relevance import ChannelRelevance
from xfr_plugin.lrp.choice import AUTO_COMPOSITE, kept_composite
from xfr_plugin.lrp.propagation import region_relevance
from xfr_plugin.recognition import Recognizer

__all__ = ["RegionMatches", "match_regions"]


@dataclass(frozen=True)
class RegionMatches:
    """Which regions of two faces matched.

    Attributes:
        verification: the decision.
        images: aligned probe and reference, H×W×3, 0…255.
        regions: of both faces, P.
        relevance: P×P; entry (i, j) is what region i of the probe and region j of the reference add to the score
            together. The entries sum to the score. From channel maps normalised to 1, see `BiLRP`.
        specific: P×P, the part of `relevance` that a distribution common to all channels does not explain. Rows and
            columns sum to 0.
        self_match: strongest entry of `specific` inside the face when each face is matched with itself, mean of both:
            the measure of how strong a match between regions can be.
        conserved: sum of the relevance that reaches the pixels without that normalisation; what is missing to the
            score was absorbed by biases or lost by rules.
        composite: name of the rules.
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


@torch.inference_mode(False)
def match_regions(
    photo_a: PhotoSource,
    photo_b: PhotoSource,
    *,
    recognizer: RecognizerSource,
    composite: str = "auto",
    threshold: float | None = None,
    fmr: float | None = None,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    faces: tuple[int, int] = (0, 0),
    device: str | torch.device | None = None,
) -> RegionMatches:
    """Decide whether two photos show the same person, and show which regions matched, by BiLRP.

    Args:
        photo_a, photo_b, recognizer, threshold, fmr, detector, alignment, faces, device: see `verify`.
        composite: see `lrp.choice.composite_for`.

    Raises:
        InputError: the network has no rules; for other errors, and warnings, see `verify`.
    """
    model = open_recognizer(recognizer, device)
    chosen = choose_threshold(model, threshold, fmr)
    pair = open_pair(model, (photo_a, photo_b), faces, detector, alignment, chosen)
    regions = template_regions(model.input_size)
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
        composite=AUTO_COMPOSITE if composite == "auto" else composite,
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
