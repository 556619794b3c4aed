"""Stability: a photo that is a little brighter or compressed, and decided the same, has the same explanation."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.scoring import gaussian_blurred
from xfr_plugin.attr.registry import Method
from xfr_plugin.base.statistics import SMOOTHING, smoothed
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.localisation import most_salient_region
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import (
    Attributions,
    chosen,
    explained_probe,
    generator_for,
    rank_correlation,
    saliency_of,
)
from xfr_plugin.faces.regions import RegionMap

__all__ = ["Change", "Stability", "changed_photo", "same_region", "top_overlap"]

Change: TypeAlias = Literal["brightness", "gamma", "contrast", "jpeg", "blur"]
"""`brightness`: 0.05 is added. `gamma`: to the power of 1.15. `contrast`: 0.85 of the distance to the mean remains.
`jpeg`: compressed at quality 75. `blur`: by a Gaussian of σ 0.7 pixels at 112×112. Always back to 8 bits."""


class Stability(MethodProtocol):
    """The probe is changed a little, as a camera would, and explained again.

    Ours, after Alvarez-Melis and Jaakkola (arXiv 1806.08049), who ask explanations to be robust. Each pair gets a
    few of the changes, drawn by its name, so that all of them are seen in a run. Where the change turns the decision,
    a changed map is no fault: only `decision_kept`, 0, is noted then.

    Measured for each change (the variant): `decision_kept`, 1 or 0; `rank_correlation`, Spearman's, of the two maps
    inside the face, blurred; `top_overlap`, intersection over union of the most salient tenth of the face;
    `same_region`, 1 if the same named region has the highest mean saliency. Salient is what speaks for the decision:
    the similar map of a match, the dissimilar map of a non-match.

    2 forwards, and for each change one forward and one explanation of the probe; 2 changes by default.

    Args:
        changes: to draw from, see `Change`.
        count: how many changes each pair gets.
        smoothing: σ of the blur, as a share of the face's height.

    Raises:
        InputError: an unknown option.
    """

    name = "stability"
    title = "Stability"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "rank_correlation": True,
        "top_overlap": True,
        "same_region": True,
    }
    sides: Literal["both", "probe"] = "probe"
    options = ("changes", "count", "smoothing")

    def __init__(
        self,
        *,
        changes: Sequence[Change] = get_args(Change),
        count: int = 2,
        smoothing: float = SMOOTHING,
    ) -> None:
        self.changes = chosen("changes", changes, get_args(Change))
        if not 1 <= count <= len(self.changes) or not 0 <= smoothing < 1:
            raise InputError(
                f"count must be 1 … {len(self.changes)} and smoothing 0 … 1, got {count} and {smoothing:g}"
            )
        self.count, self.smoothing = count, float(smoothing)
        self._attributions = Attributions()

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Change, decide, and explain where the decision stays."""
        rng = generator_for(setting, pair, self.name)
        drawn = [self.changes[i] for i in rng.choice(len(self.changes), self.count, replace=False)]
        probe, reference = pair.images(setting.recognizer)
        photos = [changed_photo(probe, change) for change in drawn]
        partner, clean, *others = setting.embed(torch.cat([reference, probe, *photos])).split(1)
        match = bool(setting.compare(clean, partner) >= setting.threshold)
        attribution = self._attributions.of(method, setting)
        for change, photo, embedding in zip(drawn, photos, others, strict=True):
            kept = bool(setting.compare(embedding, partner) >= setting.threshold) == match
            yield Measurement(change, "decision_kept", float(kept))
            if kept:
                found = explained_probe(attribution, photo, reference, partner)
                yield from self._compared(change, maps[0], found, match, pair.probe_regions)

    def _compared(
        self,
        change: Change,
        before: NDArray[np.float32],
        after: NDArray[np.float32],
        match: bool,
        regions: RegionMap,
    ) -> Iterator[Measurement]:
        first, second = (smoothed(saliency_of(side, match), self.smoothing) for side in (before, after))
        yield Measurement(change, "rank_correlation", rank_correlation(first, second, regions.face, 0))
        yield Measurement(change, "top_overlap", top_overlap(first, second, regions.face))
        yield Measurement(change, "same_region", float(same_region(first, second, regions)))


def changed_photo(images: Tensor, change: Change) -> Tensor:
    """Images N×3×H×W in [0, 1] after a small change, in 8-bit steps; see `Change`."""
    if change == "jpeg":
        return torch.stack([_compressed(image, 75) for image in images])
    if change == "brightness":
        result = images + 0.05
    elif change == "gamma":
        result = images**1.15
    elif change == "contrast":
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        result = mean + 0.85 * (images - mean)
    else:
        result = gaussian_blurred(images, 0.7)
    return (result.clamp(0, 1) * 255).round() / 255


def top_overlap(
    first: NDArray[np.floating], second: NDArray[np.floating], inside: NDArray[np.bool_]
) -> float:
    """Intersection over union of the most salient pixels of two maps, a tenth of those inside; 0 … 1.

    Among equals the first in reading order are taken; NaN where a map is constant, which has no most salient pixels.
    """
    sides = [values[inside] for values in (first, second)]
    if any(np.ptp(side) == 0 for side in sides):
        return float("nan")
    count = max(1, round(0.1 * sides[0].size))
    tops = [set(np.argsort(-side, kind="stable")[:count].tolist()) for side in sides]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def same_region(first: NDArray[np.floating], second: NDArray[np.floating], regions: RegionMap) -> bool:
    """Whether two maps have their highest mean in the same region of the face."""
    masks: dict[str, NDArray[np.bool_]] = {name: regions.mask(name) for name in regions.names[1:]}
    seen = {name: mask for name, mask in masks.items() if mask.any()}
    return most_salient_region(first, seen) == most_salient_region(second, seen)


def _compressed(image: Tensor, quality: int) -> Tensor:
    from PIL import Image  # takes its time to import

    pixels = (image * 255).round().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    decoded = np.array(Image.open(buffer))
    return torch.from_numpy(decoded).permute(2, 0, 1).to(image) / 255
