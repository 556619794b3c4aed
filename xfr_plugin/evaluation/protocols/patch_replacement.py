"""Patch replacement: foreign patches in a face, taken back in the order of the map."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.registry import Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import (
    Attributions,
    LastPair,
    curve_mean,
    explained_probe,
    generator_for,
    is_correct,
    percents,
    salient_order,
    side_of_threshold,
)
from xfr_plugin.swaps.donors import synthetic_faces

__all__ = ["PatchReplacement", "patch_grid"]

REFERENCE_SIDE = 112

_SYNTHETIC = 16


class PatchReplacement(MethodProtocol):
    """Some patches of the probe are replaced, the changed probe is explained, and patches are restored by its map.

    After the Patch-LFW of Huber et al. (xSSAB, arXiv 2304.13409), but not the same: which patches, how many and
    from whom is ours. The patches of an impostor pair's probe come from the reference itself (`mate patches`), so
    the similar map should point at them. Those of a genuine pair come from one of `donors` (`impostor patches`), and
    the dissimilar map should. Patches are ranked by their mean saliency, all of the grid, replaced or not: restoring
    one that was not replaced changes nothing.

    Measured at each P, in percent of the patches: `score` and `correct` (1 or 0: right at the fixed threshold), so
    that 1 − the mean of `correct` is the false match rate (mate patches) or the false non-match rate. Once:
    `accuracy_auc` and `margin_auc`, see `MaskingProtocol`; `margin_gain`, the margin's area minus that of random
    orders; `found`, the share of replaced patches among as many top patches, for chance `share`. The variant
    `…, random order` has the means over the random orders.

    1 explanation of the probe and 3 + 9 · (1 + `orders`) forwards, 30 by default; all but 9 of them are shared by the
    methods that are judged on a pair one after another.

    Args:
        patch: side of a patch in pixels at 112×112; the grid has as many rows and columns as fit, seven for 16.
        share: of the patches that are replaced.
        steps: P goes from 0 to 100 percent in so many steps.
        orders: random orders to compare with.
        donors: aligned 8-bit faces, 3×H×W each, of people who are in no pair; if there are none, synthetic faces of
            people who do not exist (`swaps.donors.synthetic_faces`).

    Raises:
        InputError: an option out of range.
    """

    name = "patch_replacement"
    title = "Patch replacement"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "accuracy_auc": True,
        "margin_auc": True,
        "margin_gain": True,
        "found": True,
    }
    sides: Literal["both", "probe"] = "probe"
    options = ("patch", "share", "steps", "orders")
    along = "patches restored, %"

    def __init__(
        self,
        *,
        patch: int = 16,
        share: float = 1 / 3,
        steps: int = 10,
        orders: int = 2,
        donors: Sequence[Tensor] = (),
    ) -> None:
        if not 1 <= patch <= REFERENCE_SIDE or not 0 < share < 1:
            raise InputError(f"patch must be 1 … 112 pixels and share 0 … 1, got {patch} and {share:g}")
        if steps < 1 or orders < 1:
            raise InputError(f"steps ≥ 1 and orders ≥ 1 are needed, got {steps} and {orders}")
        self.patch, self.share, self.steps, self.orders = patch, float(share), steps, orders
        self.donors = tuple(donors)
        self._shared: LastPair[_Patched] = LastPair()
        self._attributions = Attributions()

    def settings(self) -> dict[str, object]:
        """All options; the donors by their checksum."""
        digest = hashlib.sha256(b"".join(donor.cpu().numpy().tobytes() for donor in self.donors))
        return {**super().settings(), "donors": digest.hexdigest()[:16] if self.donors else None}

    def salient_sign(self, pair: EvaluationPair) -> int:
        """What is foreign argues for a match in an impostor pair, and against one in a genuine pair."""
        return -side_of_threshold(pair)

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Replace, explain, restore."""
        patched = self._shared.get(pair, setting, lambda: self._replace(pair, setting))
        attribution = self._attributions.of(method, setting)
        reference = pair.images(setting.recognizer)[1]
        found = explained_probe(attribution, patched.foreign, reference, patched.partner)
        order = self._order(found, patched.grid, pair, method, setting)
        curve = self._restored(patched, [order], pair, setting)
        variant = "impostor patches" if pair.genuine else "mate patches"
        area = yield from self._measured(variant, curve, pair, setting)
        chance = yield from self._measured(f"{variant}, random order", patched.random, pair, setting)
        top = order[: len(patched.replaced)]
        yield Measurement(variant, "margin_gain", area - chance)
        yield Measurement(variant, "found", float(np.isin(top, patched.replaced).mean()))

    def _replace(self, pair: EvaluationPair, setting: Setting) -> _Patched:
        """Draw the patches, replace them, and restore them in random orders."""
        rng = generator_for(setting, pair, self.name)
        probe, reference = pair.images(setting.recognizer)
        donor = self._donor(pair, rng).to(probe.device).to(probe.dtype)[None] / 255
        grid = patch_grid(pair.probe_regions.size, self.patch)
        cells = int(grid.max()) + 1
        replaced = rng.permutation(cells)[: max(1, round(self.share * cells))]
        mask = torch.from_numpy(np.isin(grid, replaced)).to(probe.device)
        foreign = torch.where(mask, donor, probe)
        partner, *ends = setting.embed(torch.cat([reference, foreign, probe])).split(1)
        scores = [float(setting.compare(end, partner)) for end in ends]
        patched = _Patched(grid, replaced, foreign, partner, (scores[0], scores[1]), np.empty(0))
        orders = [rng.permutation(cells) for _ in range(self.orders)]
        return replace(patched, random=self._restored(patched, orders, pair, setting))

    def _donor(self, pair: EvaluationPair, rng: np.random.Generator) -> Tensor:
        if not pair.genuine:
            return pair.reference
        if self.donors:
            return self.donors[int(rng.integers(len(self.donors)))]
        faces = synthetic_faces(_SYNTHETIC, pair.probe_regions.size)
        return (faces[int(rng.integers(_SYNTHETIC))] * 255).round().byte()

    def _order(
        self,
        signed: NDArray[np.float32],
        grid: NDArray[np.intp],
        pair: EvaluationPair,
        method: Method,
        setting: Setting,
    ) -> NDArray[np.intp]:
        """Patches in the order in which they are restored."""
        sign = (
            1 if method.name in CHANCE_BASELINES else self.salient_sign(pair)
        )  # which has no signs of its own
        sums = np.bincount(grid.ravel(), weights=sign * signed.ravel().astype(np.float64))
        means = sums / np.bincount(grid.ravel())
        return salient_order(means, generator_for(setting, pair, f"{self.name}, ties"))

    def _restored(
        self, patched: _Patched, orders: Sequence[NDArray[np.intp]], pair: EvaluationPair, setting: Setting
    ) -> NDArray[np.float64]:
        """Scores orders×(steps + 1) while patches are restored in each order."""
        probe, _ = pair.images(setting.recognizer)
        counts = np.rint(np.linspace(0, len(orders[0]), self.steps + 1)).astype(int)
        curves = np.repeat(
            [patched.ends[:1] + (0.0,) * (self.steps - 1) + patched.ends[1:]], len(orders), axis=0
        )
        if self.steps > 1:
            restored = [np.isin(patched.grid, order[:count]) for order in orders for count in counts[1:-1]]
            masks = torch.from_numpy(np.array(restored))[:, None].to(probe.device)
            rows = setting.embed(torch.where(masks, probe, patched.foreign))
            scores = setting.compare(rows, patched.partner).double().cpu().numpy()
            curves[:, 1:-1] = scores.reshape(len(orders), -1)
        return curves

    def _measured(
        self, variant: str, curves: NDArray[np.float64], pair: EvaluationPair, setting: Setting
    ) -> Generator[Measurement, None, float]:
        """Means over the curves; returns the margin's area."""
        right = np.vectorize(lambda score: float(is_correct(score, pair, setting.threshold)))(curves)
        scores, correct = curves.mean(axis=0), right.mean(axis=0)
        for percent, score, share in zip(percents(self.steps), scores, correct, strict=True):
            yield Measurement(variant, "score", float(score), percent)
            yield Measurement(variant, "correct", float(share), percent)
        margin = curve_mean((side_of_threshold(pair) * (scores - setting.threshold)).tolist())
        yield Measurement(variant, "accuracy_auc", curve_mean(correct.tolist()))
        yield Measurement(variant, "margin_auc", margin)
        return margin


@dataclass(frozen=True)
class _Patched:
    """A probe with foreign patches.

    Attributes:
        grid: see `patch_grid`.
        replaced: numbers of the replaced patches.
        foreign: the probe with these, 1×3×H×W.
        partner: embedding of the reference, 1×D.
        ends: score with all replaced patches, and with none.
        random: scores while they are restored in random orders, orders×(steps + 1).
    """

    grid: NDArray[np.intp]
    replaced: NDArray[np.intp]
    foreign: Tensor
    partner: Tensor
    ends: tuple[float, float]
    random: NDArray[np.float64]


def patch_grid(size: tuple[int, int], patch: int = 16) -> NDArray[np.intp]:
    """Number of the patch that each pixel belongs to, H×W; patches of 16 make 7 rows and 7 columns at any size."""
    count = min(max(1, REFERENCE_SIDE // patch), *size)
    rows, columns = (np.minimum(np.arange(n) * count // n, count - 1) for n in size)
    grid: NDArray[np.intp] = rows[:, None] * count + columns
    return grid
