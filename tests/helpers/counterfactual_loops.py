"""Counterfactual evidence in the plainest words: one changed face at a time, embedded anew for every score.

What `test_attr_counterfactual*.py` compare with: readings as the formulas of `attr/_interventions.py` say, evidence
by a softmax written out. Only the smoothing and growing of masks are scipy's here, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from torch import Tensor, nn

from xfr_plugin.attr.counterfactual.model import (
    READINGS,
    CounterfactualModel,
    Form,
    Hypothesis,
    HypothesisModel,
)
from xfr_plugin.faces import RegionMap
from xfr_plugin.swaps.donors import synthetic_faces

SIZE = (56, 48)
PARTS = {
    "eyes": ("right_eye", "left_eye"),
    "brows": ("right_brow", "left_brow"),
    "nose": ("nose",),
    "mouth": ("mouth",),
    "forehead": ("forehead",),
    "cheeks": ("right_cheek", "left_cheek"),
    "chin": ("chin",),
    "outside": ("background", "hair", "right_ear", "left_ear"),
}
Mask = NDArray[np.bool_]
Score = Callable[[Tensor, Tensor], float]
"""Of two faces, each C×H×W."""


class SmallFaceNet(nn.Module):
    """Faces N×C×H×W of any size to embeddings N×7."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 5, stride=3)
        self.pool = nn.AdaptiveAvgPool2d((5, 4))
        self.fc = nn.Linear(120, 7)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.fc(self.pool(torch.tanh(2 * self.conv(images - 0.5))).flatten(1))
        return embedding


def face_net(channels: int = 3) -> nn.Module:
    torch.manual_seed(2)
    return SmallFaceNet(channels).double().eval().requires_grad_(False)


def faces(count: int = 2, size: tuple[int, int] = SIZE, seed: int = 40) -> tuple[Tensor, Tensor]:
    """Probes and references, count×3×H×W in float64: synthetic faces, on which outlines are found."""
    drawn = synthetic_faces(2 * count, size, seed).double()
    return drawn[:count], drawn[count:]


def any_model(seed: int = 3) -> CounterfactualModel:
    """A model of random numbers, in which every reading of every region matters."""
    rng = np.random.default_rng(seed)

    def hypothesis(readings: int) -> HypothesisModel:
        return HypothesisModel(
            mean=rows(rng.normal(0, 0.1, (8, readings))),
            spread=rows(rng.uniform(0.1, 0.4, (8, readings))),
            weights=rows(rng.normal(0, 0.7, (8, readings))),
            bias=tuple(rng.normal(0, 0.3, 8).tolist()),
            none=0.4,
            effect=float(rng.uniform(0.05, 0.3)),
        )

    names: tuple[Hypothesis, ...] = ("dissimilar", "similar")
    hypotheses = {form: {name: hypothesis(len(known)) for name in names} for form, known in READINGS.items()}
    return CounterfactualModel(hypotheses=hypotheses)


def rows(values: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())


def region_masks(regions: RegionMap) -> dict[str, Mask]:
    return {name: regions.mask(*named) for name, named in PARTS.items()}


def grown(mask: Mask) -> Mask:
    pixels = max(1, round(2 / 112 * len(mask)))
    larger: Mask = binary_dilation(mask, iterations=pixels)
    return larger


def with_region(face: Tensor, donor: Tensor, mask: Mask) -> Tensor:
    """The face with the donor's region: feathered, and shifted to the face's mean colour along the seam."""
    weight = gaussian_filter(mask.astype(np.float64), 1.5 / 112 * len(mask))
    seam = binary_dilation(mask, iterations=2) & ~binary_erosion(mask, border_value=1)
    colours = []
    for old, other in zip(face.numpy(), donor.numpy(), strict=True):
        shifted = other + old[seam].mean() - other[seam].mean()
        colours.append(np.clip((1 - weight) * old + weight * shifted, 0, 1))
    return torch.from_numpy(np.stack(colours))


def cosine_of(network: nn.Module) -> Score:
    def score(first: Tensor, second: Tensor) -> float:
        a, b = (network(face[None])[0].tolist() for face in (first, second))
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))

    return score


def looped_readings(
    score: Score, a: Tensor, b: Tensor, regions: tuple[RegionMap, RegionMap], donors: Sequence[Tensor]
) -> NDArray[np.float64]:
    """Readings of A against B: regions × readings × faces of nobody, not yet averaged over these."""
    masks = [region_masks(side) for side in regions]
    table = []
    for name in PARTS:
        both = grown(masks[0][name]) | grown(masks[1][name])
        of_a, of_b = grown(masks[0][name]), grown(masks[1][name])
        a_b, b_a = with_region(a, b, both), with_region(b, a, both)
        columns = []
        for p in donors:
            a_p, b_p = with_region(a, p, of_a), with_region(b, p, of_b)
            p_a, p_b = with_region(p, a, of_a), with_region(p, b, of_b)
            reading = {
                "exchange": score(a_b, b) - score(a, b),
                "exchange_partner": score(b_a, a) - score(a, b),
                "intrusion": score(a_b, a) - 1,
                "intrusion_partner": score(b_a, b) - 1,
                "removal": score(a_p, b) - score(a, b),
                "removal_partner": score(b_p, a) - score(a, b),
                "both": score(a_p, b_p) - score(a, b),
                "transplant": score(p_a, b) - score(p, b),
                "transplant_partner": score(p_b, a) - score(p, a),
                "kinship": score(a_b, a) - 1 - (score(a_p, a) - 1),
                "kinship_partner": score(b_a, b) - 1 - (score(b_p, b) - 1),
            }
            columns.append([reading[which] for which in READINGS["pair"]])
        table.append(columns)
    return np.array(table).transpose(0, 2, 1)


def looped_posteriors(
    fitted: HypothesisModel, readings: NDArray[np.float64], present: Sequence[bool], power: int = 1
) -> list[float]:
    """Of each region, and last of none of them, from readings R×F; of powers of the odds."""
    terms = []
    for r, values in enumerate(readings):
        logit = fitted.bias[r] + sum(
            w * (x - m) / s
            for w, x, m, s in zip(fitted.weights[r], values, fitted.mean[r], fitted.spread[r], strict=True)
        )
        terms.append(math.exp(logit) ** power if present[r] else 0.0)
    terms.append(math.exp(fitted.none) ** power)
    return [term / sum(terms) for term in terms]


def looped_evidence(
    model: CounterfactualModel,
    form: Form,
    readings: NDArray[np.float64],
    areas: Sequence[int],
    margin: float,
) -> list[float]:
    """Evidence of each region, from readings R×F and pixels of each region."""
    shown = [area > 0 for area in areas]
    shares = [area / sum(areas) for area in areas]
    beyond, none = [0.0] * len(areas), 0.0
    for hypothesis, sign in (("similar", 1), ("dissimilar", -1)):
        fitted = model.hypotheses[form][hypothesis]
        likely = looped_posteriors(fitted, readings, shown)
        standing_out = looped_posteriors(fitted, readings, shown, power=4)
        none = max(none, likely[-1])
        for r, share in enumerate(shares):
            part = likely[r] / 3 + standing_out[r] * sum(shown) * share * 2 / 3
            beyond[r] += sign * fitted.effect * part
    rest = margin - sum(beyond)
    moved = []
    for r, share in enumerate(shares):
        removal = readings[r][READINGS[form].index("removal")]
        if rest > 0:
            change = -removal
        else:
            change = readings[r][READINGS[form].index("exchange")] if form == "pair" else removal
        moved.append(max(0.0, change) * shown[r] + 1e-3 * share)
    return [
        b + rest * ((1 - none**2) * share + none**2 * m / sum(moved))
        for b, share, m in zip(beyond, shares, moved, strict=True)
    ]


def rasterized_on_cores(evidence: Sequence[float], masks: Sequence[Mask]) -> NDArray[np.float64]:
    """Map H×W: on a region by the root of the distance to the nearest pixel beside it, up to 5 pixels of 112."""
    drawn = np.zeros(masks[0].shape)
    for value, mask in zip(evidence, masks, strict=True):
        inside, others = np.argwhere(mask), np.argwhere(~mask)
        distances = [np.sqrt(((others - pixel) ** 2).sum(axis=1).min()) for pixel in inside]
        depths = [min(distance, 5 / 112 * len(mask)) ** 0.5 for distance in distances]
        for (y, x), depth in zip(inside, depths, strict=True):
            drawn[y, x] += value * depth / sum(depths)
    return drawn
