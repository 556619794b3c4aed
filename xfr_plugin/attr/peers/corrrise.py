"""CorrRISE: correlation of the score with random masks (Lu, Xu and Ebrahimi, WACV 2024, arXiv 2305.08546)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr._base.caveats import LITTLE_BETTER, MASKED
from xfr_plugin.attr._base.masks import BoxMasks, Masks, random_boxes, weighted_sum
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL, PerturbationPairAttribution
from xfr_plugin.attr._base.scoring import EmbeddedFaces, FaceScores, Fill
from xfr_plugin.attr._base.smoothing import Blur
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.errors import InputError

__all__ = ["CorrRise", "GalleryMaps"]

Correlation = Literal["pearson", "spearman"]


class GalleryMaps(NamedTuple):
    """Why a probe is like the entries of a gallery that it is most like.

    Attributes:
        maps: signed maps N×K×C×H×W of the probes, for each of the K nearest entries, the nearest first.
        indices: which entries of the gallery these are, N×K.
        scores: cosine of the clean probes with them, N×K.
    """

    maps: Tensor
    indices: Tensor
    scores: Tensor


@attribution_method(
    name="corrrise",
    title="Correlation with random masks",
    paper="Lu, Xu and Ebrahimi, arXiv 2305.08546",
    year=2024,
    needs="scores",
    cost="1 + 500 forward a face",
    relative_cost=400,
    caveat=f"{MASKED}; {LITTLE_BETTER}",
    compared=True,
    trial_options={"n_masks": 40, "patch_size": 20},
)
class CorrRise(PerturbationPairAttribution):
    """Correlation, over random masks, of the score with what is kept of each pixel.

    Every mask covers a face with a few square patches at random places. The masked face is compared with the clean
    partner; the map is the correlation coefficient of the score with the keep-mask, pixel by pixel, in −1…1. Where
    keeping a pixel goes with a higher score the pixel argues for a match (similar map); where it goes with a lower
    score, against it (dissimilar map). Both signs are the published method's own. A pixel that no mask covers has no
    correlation, and gets 0.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`. The map does not depend on it.
        n_masks: number of masks for each face.
        n_patches: patches in each mask; they may overlap.
        patch_size: side of a patch, in pixels at 112×112.
        correlation: `pearson`, or `spearman`: of the ranks of the scores, which extreme scores cannot dominate.
        fill, blur: see `PerturbationPairAttribution`.
        seed: of the masks.

    Raises:
        InputError: an unknown option.

    Example:
        >>> corrrise = CorrRise(recognizer)
        >>> probe_map, _ = corrrise.attribute((probe, reference), perturbations_per_eval=16)  # bounds the memory
        >>> bool(probe_map.sum(dim=1).abs().max() <= 1)  # correlations
        True
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        n_masks: int = 500,
        n_patches: int = 3,
        patch_size: float = 30,
        correlation: Correlation = "pearson",
        fill: Fill = "black",
        blur: Blur | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(forward_func, threshold, fill=fill, blur=blur)
        self.n_masks = checked_at_least("n_masks", n_masks, 2)
        self.n_patches = checked_at_least("n_patches", n_patches, 1)
        self.patch_size = checked_at_least("patch_size", patch_size, 1)
        self.correlation: Correlation = checked_choice("correlation", correlation, "pearson", "spearman")
        self.seed = seed

    def attribute_gallery(
        self,
        probes: Tensor,
        gallery: Tensor,
        top_k: int = 5,
        perturbations_per_eval: int = PERTURBATIONS_PER_EVAL,
        show_progress: bool = False,
    ) -> GalleryMaps:
        """Attribute the K highest scores of each probe in a gallery (1:N) to the probe's pixels.

        The masked probes are embedded once, whatever K: every map correlates the same masks with the scores of
        another gallery entry (after arXiv 2407.05983). The mean over K explains the candidate list as a whole.

        Args:
            probes: images N×C×H×W.
            gallery: embeddings G×D, normalised or not.
            top_k: entries to explain, 1…G.
            perturbations_per_eval, show_progress: see `attribute`.

        Raises:
            InputError: a gallery of another shape, `top_k` out of range, or an attribution made by `from_scores`:
                there, call `attribute` with each candidate.
        """
        if gallery.ndim != 2 or not 1 <= top_k <= len(gallery):
            raise InputError(
                f"the gallery must be G×D with G ≥ top_k ≥ 1, got {tuple(gallery.shape)} and {top_k}"
            )
        with torch.no_grad():
            units = functional.normalize(gallery.detach(), dim=1)
            pair = self._read((probes,), (units[:1],)) if not self.scores_only else Pair(probes, None, ())
            faces = self._faces(pair, perturbations_per_eval, show_progress)
            if not isinstance(faces, EmbeddedFaces):
                raise InputError("a gallery needs embeddings: call attribute(probe, …) with each candidate")
            scores, indices = (faces.units @ units.T.to(faces.units)).topk(top_k, dim=1)
            masks = self._masks(faces)
            candidates = units.to(faces.units)[indices]
            curves = torch.einsum("mnd,mkd->mkn", faces.embeddings(masks), candidates)
            maps = self._correlate(curves.flatten(0, 1).to(probes), masks).unflatten(0, (-1, top_k))
            spread = self._spread(maps.flatten(0, 1), Pair(probes.repeat_interleave(top_k, 0), None, ()))
        return GalleryMaps(spread.unflatten(0, (-1, top_k)).contiguous(), indices, scores)

    def _maps(self, faces: FaceScores) -> Tensor:
        masks = self._masks(faces)
        return self._correlate(faces.scores(masks), masks)

    def _masks(self, faces: FaceScores) -> BoxMasks:
        return random_boxes(self.n_masks, self.n_patches, self.patch_size, faces.shape, self.seed)

    def _correlate(self, scores: Tensor, masks: Masks) -> Tensor:
        return -mask_correlation(_ranks(scores) if self.correlation == "spearman" else scores, masks)


def mask_correlation(scores: Tensor, masks: Masks) -> Tensor:
    """Pearson's correlation M×H×W of scores M×n with n binary masks; 0 where either does not vary.

    The ranks of a binary variable are a rescaling of it, so with the ranks of scores this is Spearman's.
    """
    count = len(masks)
    centred = scores - scores.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1).sqrt()
    rounding = 8 * torch.finfo(scores.dtype).eps * scores.abs().amax(dim=1)
    share = weighted_sum(torch.ones_like(scores[:1]), masks) / count
    spread = (share * (1 - share)).clamp_min(0).sqrt()
    covariance = weighted_sum(centred, masks) / count
    varies = (deviation > rounding)[:, None, None] & (spread > 0)
    product = deviation[:, None, None] * spread
    return torch.where(varies, covariance / product.where(varies, torch.ones_like(product)), 0.0)


def _ranks(values: Tensor) -> Tensor:
    """Ranks of each row M×n, ties sharing their mean rank."""
    ranks = []
    for row in values:
        _, group, sizes = torch.unique(row, return_inverse=True, return_counts=True)
        ranks.append((sizes.cumsum(0) - (sizes - 1) / 2)[group])
    return torch.stack(ranks).to(values)
