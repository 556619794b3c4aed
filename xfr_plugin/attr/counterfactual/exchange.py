"""Exchange: where the partner's pixels raise the score, the faces differ."""

from __future__ import annotations

from torch import Tensor

from xfr_plugin.attr._base.masks import GaussianMasks
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.scoring import FaceScores
from xfr_plugin.attr._base.windows import WindowAttribution
from xfr_plugin.errors import InputError

__all__ = ["Exchange"]


@attribution_method(
    name="exchange",
    title="Exchange with the partner's pixels",
    paper="ours, after Goyal et al., arXiv 1904.07451",
    year=2026,
    needs="scores",
    cost="1 + 366 forward a face (112×112)",
    relative_cost=290,
    caveat="its maps say where the partner's pixels raise the score, so nearly all of them is negative, and only "
    "differences within a map mean anything",
    needs_both_images=True,
    trial_options={"sizes": (14, 28)},
)
class Exchange(WindowAttribution):
    """Blends the partner's pixels into a face, window by window: S = −gain of the score.

    Where the score rises most, the faces differ most. In a window where they are of one person, little changes. The
    window is shifted to the face's mean colour within it. Needs both faces as images. The sign is a measure of
    difference only: nearly every exchange raises the score, so that nearly all of the map is negative.

    Ours, after counterfactual visual explanations (Goyal et al., ICML 2019, arXiv 1904.07451).

    Args:
        forward_func, threshold: see `PairAttribution`.
        sizes: standard deviations of the windows in pixels of 112; some 400 forward passes a face with the default.
        spacing: distance of window centres, in standard deviations.

    Raises:
        InputError: an unknown option; a reference that is only an embedding.

    Example:
        >>> probe_map, reference_map = Exchange(recognizer).attribute((probe, reference))
        >>> bool((probe_map < 0).float().mean() > 0.5)  # the partner's pixels raise the score nearly everywhere
        True
    """

    reads_both_faces = True

    def _changed_scores(self, faces: FaceScores, windows: GaussianMasks) -> Tensor:
        if not faces.paired:
            raise InputError("exchange needs both faces as images: pass (probe, reference)")
        partners = faces.images.roll(len(faces.images) // 2, dims=0)
        return faces.scores_with(partners, windows)
