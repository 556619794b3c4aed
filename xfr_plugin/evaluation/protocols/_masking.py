"""The base of deletion and insertion: pixels are masked in the order of the map, and the pair is verified again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.scoring import Fill, _fill_images, checked_fill
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.base.statistics import checked_smoothing, smoothed
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.natural.strangers import pose_matched
from xfr_plugin.evaluation.protocol import EvaluationPair, MapProtocol, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import (
    LastPair,
    Saliency,
    chosen,
    curve_mean,
    generator_for,
    is_correct,
    percents,
    saliency_of,
    salient_order,
    side_of_threshold,
)

__all__ = ["Faces", "MaskingProtocol", "Substitute"]

Substitute: TypeAlias = Fill | Literal["strangers"]
"""What stands where a face is masked: see `Fill`; or other people's faces, posed alike, whom no method has."""

Faces: TypeAlias = Literal["probe", "reference", "both"]
"""Which face is masked, each by its own map; the other one stays as it is."""


class MaskingProtocol(MapProtocol):
    """Verification of a pair while its faces are masked step by step, see `deletion` and `insertion`.

    Pixels are ranked in the whole crop, ties at random. Every combination of the options is a variant of its own.

    Measured at each P, in percent of the pixels: `score` (cosine) and `correct` (1 or 0: the decision at the fixed
    threshold is the right one; its mean over pairs is the verification accuracy). Once for each variant:
    `accuracy_auc`, the area under `correct` (its mean over pairs is the area under the accuracy curve), and
    `margin_auc`, the area under how far the score is on the right side of τ: s − τ of a genuine pair, τ − s of an
    impostor pair. Both by the trapezoid rule, P as a share.

    Args:
        faces: see `Faces`.
        fills: what stands where a face is masked: `black`, `mean` (each face's mean colour), `blur` (the face
            blurred, σ 8 pixels at 112×112), a number, or `strangers`: the faces of two other people, posed alike, in
            the face's mean colour, that fade in over a few pixels, so that a face stays a face. Scores are then means
            over the two.
        saliencies: see `Saliency`.
        steps: P goes from 0 to 100 percent in so many steps.
        smoothing: σ of a blur of the maps before pixels are ranked, as a share of the height.

    Raises:
        InputError: an unknown option.
    """

    options = ("faces", "fills", "saliencies", "steps", "smoothing")
    removes: bool

    def __init__(
        self,
        *,
        faces: Sequence[Faces] = ("probe",),
        fills: Sequence[Substitute] = ("black", "strangers"),
        saliencies: Sequence[Saliency] = ("evidence",),
        steps: int = 10,
        smoothing: float = 0.0,
    ) -> None:
        self.faces = chosen("faces", faces, get_args(Faces))
        self.saliencies = chosen("saliencies", saliencies, get_args(Saliency))
        if isinstance(fills, str) or not fills:
            raise InputError(f"fills must be a sequence of at least one fill, got {fills!r}")
        self.fills: tuple[Substitute, ...] = tuple(
            dict.fromkeys("strangers" if fill == "strangers" else checked_fill(fill) for fill in fills)
        )
        self.steps = checked_at_least("steps", steps, 1)
        self.smoothing = checked_smoothing(smoothing)
        self.sides = "probe" if self.faces == ("probe",) else "both"
        self._substitutes: LastPair[Mapping[tuple[Substitute, int], Tensor]] = LastPair()

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterator[Measurement]:
        """Mask and verify; 2 + `steps` forwards for each face masked in each variant, twice that of strangers."""
        images = pair.images(setting.recognizer)
        variants = list(product(self.saliencies, self.faces, self.fills))
        hidden = {kind: self._hidden(pair, maps, kind, setting) for kind in self.saliencies}
        others = self._substitutes.get(pair, setting, lambda: self._drawn(pair, images, setting))
        sides = [(v, side) for v in variants for side in (0, 1) if v[1] in ("both", _SIDES[side])]
        stacked = [torch.cat(images)]
        for (kind, _, fill), side in sides:
            masks = hidden[kind][side][self._masked_levels()].to(images[side])
            masks = _softened(masks) if fill == "strangers" else masks
            stacked += [torch.lerp(images[side], other, masks[:, None]) for other in others[fill, side]]
        embedded = iter(
            setting.embed(torch.cat(stacked)).double().split([2] + [self.steps] * (len(stacked) - 1))
        )
        clean = next(embedded)
        curves = {
            (variant, side): [self._with_clean(next(embedded), clean[side]) for _ in others[variant[2], side]]
            for variant, side in sides
        }
        for variant in variants:
            probes, references = (curves.get((variant, side), [clean[side : side + 1]]) for side in (0, 1))
            count = max(len(probes), len(references))
            scores = [
                setting.compare(probes[k % len(probes)], references[k % len(references)])
                for k in range(count)
            ]
            yield from self._measured(pair, variant, torch.stack(scores).mean(dim=0).tolist(), setting)

    def _drawn(
        self, pair: EvaluationPair, images: tuple[Tensor, Tensor], setting: Setting
    ) -> dict[tuple[Substitute, int], Tensor]:
        """What stands where each face is masked, K×1×3×H×W, by fill and side."""
        wanted = {side for side in (0, 1) if set(self.faces) & {"both", _SIDES[side]}}
        return {
            (fill, side): (
                _strangers(pair, images[side], side, setting)
                if fill == "strangers"
                else _fill_images(images[side], fill)[None]
            )
            for fill, side in product(self.fills, wanted)
        }

    def _hidden(self, pair: EvaluationPair, maps: PairMaps, kind: Saliency, setting: Setting) -> list[Tensor]:
        """Masks (steps + 1)×H×W of what is hidden of each face at each P."""
        rng = generator_for(setting, pair, "masking")
        return [
            torch.from_numpy(
                self._masks(smoothed(saliency_of(side, pair.genuine, kind), self.smoothing), rng)
            )
            for side in maps
        ]

    def _masks(self, saliency: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
        place = np.empty(saliency.size, dtype=np.intp)
        place[salient_order(saliency, rng)] = np.arange(saliency.size)
        counts = np.rint(np.linspace(0, saliency.size, self.steps + 1))
        top = (place < counts[:, None]).reshape(-1, *saliency.shape)
        return top if self.removes else ~top

    def _masked_levels(self) -> slice:
        """All levels but the one where nothing is hidden."""
        return slice(1, None) if self.removes else slice(None, -1)

    def _with_clean(self, masked: Tensor, clean: Tensor) -> Tensor:
        ends = (clean[None], masked) if self.removes else (masked, clean[None])
        return torch.cat(ends)

    def _measured(
        self,
        pair: EvaluationPair,
        variant: tuple[Saliency, Faces, Substitute],
        scores: list[float],
        setting: Setting,
    ) -> Iterator[Measurement]:
        name = _variant_name(pair, variant)
        correct = [float(is_correct(score, pair, setting.threshold)) for score in scores]
        for percent, score, right in zip(percents(self.steps), scores, correct, strict=True):
            yield Measurement(name, "score", score, percent)
            yield Measurement(name, "correct", right, percent)
        margins = [side_of_threshold(pair) * (score - setting.threshold) for score in scores]
        yield Measurement(name, "accuracy_auc", curve_mean(correct))
        yield Measurement(name, "margin_auc", curve_mean(margins))


_SIDES = ("probe", "reference")
_STRANGERS = 2
_SOFT = 1.5 / 112


def _strangers(pair: EvaluationPair, image: Tensor, side: int, setting: Setting) -> Tensor:
    """Other people's faces, K×1×3×H×W, in the mean colour of an image 1×3×H×W."""
    if setting.faces is None or not pair.files:
        raise InputError("masking with strangers' faces needs a folder of faces, from which they are taken")
    files = (pair.files[side], *pair.files)
    found = pose_matched(setting.faces, setting.people, files, _STRANGERS, setting.seed)
    faces = torch.stack([setting.faces.pixels(file) for file in found]).to(image) / 255
    shift = image.mean(dim=(2, 3), keepdim=True) - faces.mean(dim=(2, 3), keepdim=True)
    return (faces + shift).clamp(0, 1)[:, None]


def _softened(masks: Tensor) -> Tensor:
    """Masks N×H×W whose edges fade over a few pixels."""
    from scipy.ndimage import gaussian_filter  # takes its time to import

    sigma = _SOFT * masks.shape[1]
    return torch.from_numpy(gaussian_filter(masks.cpu().numpy(), (0, sigma, sigma))).to(masks)


def _variant_name(pair: EvaluationPair, variant: tuple[Saliency, Faces, Substitute]) -> str:
    kind, faces, fill = variant
    if kind == "magnitude":
        evidence = "magnitude of genuine" if pair.genuine else "magnitude of impostor"
    else:
        evidence = "similar" if pair.genuine else "dissimilar"
    return f"{evidence}, {faces}, {fill if isinstance(fill, str) else format(fill, 'g')}"
