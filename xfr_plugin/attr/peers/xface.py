"""xFace: systematic occlusion of both faces (Knoche et al., WACV-W 2023, arXiv 2211.13735)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from xfr_plugin.attr._base.caveats import MASKED, TOO_FEW
from xfr_plugin.attr._base.masks import BoxMasks, inner_boxes, scaled_size, systematic_boxes, weighted_sum
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.perturbation import PerturbationPairAttribution
from xfr_plugin.attr._base.scoring import FaceScores, Fill, gaussian_blurred
from xfr_plugin.attr._base.smoothing import Blur, blurred
from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.errors import InputError

__all__ = ["XFace"]

Pairing = Literal["clean", "same", "all"]
Form = Literal["described", "released"]


@attribution_method(
    name="xface",
    title="Systematic occlusion",
    paper="Knoche, Teepe, Hörmann and Rigoll, arXiv 2211.13735",
    year=2023,
    needs="scores",
    cost="1 + 1249 forward a face (112×112)",
    relative_cost=1000,
    caveat=f"{MASKED}; {TOO_FEW}",
    trial_options={"patch_sizes": (28, 56), "stride": 28},
)
class XFace(PerturbationPairAttribution):
    """Deviation of the distance when a patch is occluded, at every place and in several sizes.

    The distance is 1 − score. Its deviation d(occluded) − d(clean), divided by the area of the patch in pixels, is
    averaged over all patches that cover a pixel, then over the patch sizes, and blurred. Where occluding makes the
    faces less alike the map is positive (similar), where it makes them more alike, negative (dissimilar): both signs
    are the published method's own. Patches stand at every stride, and flush with the far edges of the face.

    The code that the authors released differs from their description in four ways, which `form="released"` follows:
    a pixel gets the sum over the patches that cover it, divided by the number of all patches, so that pixels near the
    edges, which fewer cover, count less; patches are a pixel larger than the size by whose square the deviation is
    divided; none stand flush with the far edges; and the blur's kernel is as wide as the stride, 5×5. Its default is
    `pairing="all"`. The default here is the description.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`. The map does not depend on it.
        form: `described`, or `released`, as in the authors' code; see above.
        pairing: what an occluded face is compared with: the `clean` partner; the partner occluded at the `same`
            place (then both faces have the same map); or `all` occluded versions of the partner, with the same patch
            size, averaged. As the deviation is from the clean distance, the last shifts the map, and with it its
            sign, by what occluding the partner does on average. It costs no more forward passes than the first,
            but, where only a score function is known, the square of the number of places.
        patch_sizes: sides of the patches, in pixels at 112×112.
        stride: distance between patches, in pixels at 112×112.
        fill: see `PerturbationPairAttribution`.
        blur: `stride`: a Gaussian with the stride as σ, as published; or as in `PerturbationPairAttribution`.

    Raises:
        InputError: an unknown option; from `attribute`: both faces are to be masked, and one is no image.

    Example:
        >>> together = XFace(recognizer, pairing="same")
        >>> probe_map, reference_map = together.attribute((probe, reference))
        >>> torch.equal(probe_map, reference_map)  # both faces are occluded at the same place
        True
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        form: Form = "described",
        pairing: Pairing = "clean",
        patch_sizes: Sequence[float] = (7, 14, 28),
        stride: float = 5,
        fill: Fill = "black",
        blur: Blur | Literal["stride"] | None = "stride",
    ) -> None:
        super().__init__(forward_func, threshold, fill=fill, blur=None if isinstance(blur, str) else blur)
        if isinstance(blur, str) and blur != "stride":
            raise InputError(
                f"blur must be 'stride', (odd kernel size, positive sigma) or None, got {blur!r}"
            )
        if not patch_sizes:
            raise InputError("patch_sizes must name at least one size")
        for size in patch_sizes:
            checked_at_least("patch_sizes", size, 1)
        self.form: Form = checked_choice("form", form, "described", "released")
        self.pairing: Pairing = checked_choice("pairing", pairing, "clean", "same", "all")
        self.patch_sizes = tuple(patch_sizes)
        self.stride = checked_at_least("stride", stride, 1)
        self.blurs_by_stride = blur == "stride"

    def _maps(self, faces: FaceScores) -> Tensor:
        clean = faces.clean()[:, None]
        if self.form == "released":
            return self._released(faces, clean)
        maps, covered = zip(*(self._size_map(faces, clean, size) for size in self.patch_sizes), strict=True)
        mean = torch.stack(maps).sum(dim=0) / torch.stack(covered).sum(dim=0).clamp_min(1)
        return gaussian_blurred(mean, self.stride) if self.blurs_by_stride else mean

    def _released(self, faces: FaceScores, clean: Tensor) -> Tensor:
        """The maps of the released code, M×H×W."""
        stride = scaled_size(self.stride, faces.shape)[0]
        total = torch.zeros_like(faces.images[:, 0])
        for size in self.patch_sizes:
            side = scaled_size(size, faces.shape)[0]
            patches = inner_boxes(side, stride, faces.shape)
            deviations = clean - self._scores(faces, patches)
            total += weighted_sum(deviations, patches) / (len(patches) * side**2)
        mean = total[:, None] / len(self.patch_sizes)
        kernel = stride + 1 - stride % 2
        return blurred(mean, (kernel, float(stride)) if self.blurs_by_stride else None)[:, 0]

    def _size_map(self, faces: FaceScores, clean: Tensor, size: float) -> tuple[Tensor, Tensor]:
        """The map M×H×W of patches of one size, and which pixels they cover: with wide strides not all."""
        patches = systematic_boxes(size, self.stride, faces.shape)
        deviations = clean - self._scores(faces, patches)
        covering = weighted_sum(torch.ones_like(deviations[:1]), patches)
        area = patches.size[0] * patches.size[1]
        return weighted_sum(deviations, patches) / (covering.clamp_min(1) * area), covering > 0

    def _scores(self, faces: FaceScores, patches: BoxMasks) -> Tensor:
        if self.pairing == "same":
            return faces.scores_together(patches)
        return faces.scores(patches) if self.pairing == "clean" else faces.scores_across(patches)
