"""Replacement: where the pixels of nobody lower the score, the faces are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from xfr_plugin.attr._base.masks import GaussianMasks
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.scoring import FaceScores
from xfr_plugin.attr._base.windows import WindowAttribution
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.swaps.donors import as_images, synthetic_faces

__all__ = ["Replacement"]


@attribution_method(
    name="replacement",
    title="Replacement by faces of nobody",
    paper="ours, after Goyal et al., arXiv 1904.07451",
    year=2026,
    needs="scores",
    cost="1 + 340 forward a face (112×112)",
    relative_cost=260,
    caveat="its maps say where pixels of nobody lower the score; seams do so, too, and where the faces differ "
    "there is nothing to lose",
    trial_options={"sizes": (28,), "donors": 1},
)
class Replacement(WindowAttribution):
    """Blends faces of nobody into a face, window by window: S = mean loss of the score.

    As occlusion, but what is put in its place is a piece of another face, not black: the changed face stays one.
    Where the score falls most, the faces are most alike.

    Ours, after counterfactual visual explanations (Goyal et al., ICML 2019, arXiv 1904.07451).

    Args:
        forward_func, threshold: see `PairAttribution`.
        sizes: standard deviations of the windows in pixels of 112; some 150 forward passes a face for each donor
            with the default.
        spacing: distance of window centres, in standard deviations.
        donors: faces of nobody that are blended in, one after the other; see `reconstruction.synthetic_faces`.
        seed: of these faces.

    Raises:
        InputError: an unknown option.

    Example:
        >>> replacement = Replacement(recognizer, donors=1)
        >>> embedding = recognizer(reference)
        >>> replacement.attribute(probe, additional_forward_args=embedding).shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        sizes: Sequence[float] = (9, 14),
        spacing: float = 1.25,
        donors: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(forward_func, threshold, sizes=sizes, spacing=spacing)
        self.donors = checked_at_least("donors", donors, 1)
        self.seed = seed

    def _changed_scores(self, faces: FaceScores, windows: GaussianMasks) -> Tensor:
        donors = as_images(synthetic_faces(self.donors, faces.shape, self.seed), faces.images)
        scores = [faces.scores_with(donor.expand_as(faces.images), windows) for donor in donors]
        return torch.stack(scores).mean(dim=0)
