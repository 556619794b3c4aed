"""Occluders: something is drawn over the probe, the score falls, and the map must say that it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.registry import Method
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.occluders.frame import landmarks_of
from xfr_plugin.evaluation.occluders.kinds import OCCLUDERS, occlude
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._changes import clean_map, scores_of_change, scores_of_map
from xfr_plugin.evaluation.protocols._shared import (
    Attributions,
    LastPair,
    chosen,
    explained_probe,
    generator_for,
)
from xfr_plugin.faces.folder import as_pixels
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE

__all__ = ["Changed", "Occluders"]

Map = NDArray[np.float32]


class Changed(NamedTuple):
    """A probe with something over it.

    Attributes:
        face: 8-bit RGB, 3×H×W.
        covered: H×W.
        regions: of the face before, where they lie now.
        carried: brings a map of the face before to where it lies now.
    """

    face: Tensor
    covered: NDArray[np.bool_]
    regions: RegionMap
    carried: Callable[[Map], Map] = lambda before: before


class _Tried(NamedTuple):
    """An occluder on the probe of a pair, and by how much the score moved, as a cosine would."""

    kind: str
    changed: Changed
    moved: float


class Occluders(MethodProtocol):
    """Things drawn over the probe of a genuine pair, see `evaluation.occluders`; the covered part argues against.

    Ours. Each pair is tried with every kind, of random size, place and colour. The first few, in an order drawn for
    the pair, that lower the score by more than `MIN_SCORE_CHANGE` and cover a part of the face, but not all of it,
    are explained. What is measured is the mean over these (variant ""), and of each kind (the variant).

    The map of the covered probe, inside the face: `auc`, probability that a covered pixel argues more against a
    match than another; `stands out`, 1 if the mean evidence there is lower than elsewhere; `right sign`, 1 if it is
    against; `top1`, 1 if the region that argues most against (by its mean) is covered for at least half, or is the
    one that is covered most; `chance`, what `top1` is for a guess. The change of the map from the clean probe to the
    covered one: `change auc`, `change top1`, `change inside` (share of the change of the evidence that lies on what
    was covered), `direction`, see `_changes.scores_of_change`. Of every kind: `moves`, 1 if it lowers the score that
    far.

    17 forwards, shared; `count` explanations of the probe.

    Args:
        kinds: keys of `OCCLUDERS`.
        count: how many of those that move the score are explained.

    Raises:
        InputError: an unknown kind.
    """

    name = "occluders"
    title = "Occluders"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "auc": True,
        "stands out": True,
        "right sign": True,
        "top1": True,
        "change auc": True,
        "change top1": True,
        "change inside": True,
        "direction": True,
    }
    judges: Literal["genuine", "impostor", "all"] = "genuine"
    sides: Literal["both", "probe"] = "probe"
    options = ("kinds", "count")

    def __init__(self, *, kinds: Sequence[str] = tuple(OCCLUDERS), count: int = 2) -> None:
        self.kinds = chosen("kinds", kinds, tuple(OCCLUDERS))
        self.count = checked_at_least("count", count, 1)
        self._attributions = Attributions()
        self._tried: LastPair[list[_Tried]] = LastPair()

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Draw, see which lower the score, explain."""
        tried = self._all(pair, setting)
        judged = [one for one in tried if one.moved < -MIN_SCORE_CHANGE and _is_part(one.changed)][
            : self.count
        ]
        scores = {one.kind: dict(self._scores(one, pair, maps, method, setting)) for one in judged}
        yield Measurement("", "explained", len(judged))
        for metric in next(iter(scores.values()), {}):
            yield Measurement("", metric, float(np.mean([values[metric] for values in scores.values()])))
        for one in tried:
            yield Measurement(one.kind, "moves", float(one.moved < -MIN_SCORE_CHANGE))
            for metric, value in scores.get(one.kind, {}).items():
                yield Measurement(one.kind, metric, value)

    def _all(self, pair: EvaluationPair, setting: Setting) -> list[_Tried]:
        """Every kind that can be drawn on the probe, in the order of the pair."""
        return self._tried.get(pair, setting, lambda: self._drawn(pair, setting))

    def _drawn(self, pair: EvaluationPair, setting: Setting) -> list[_Tried]:
        order = generator_for(setting, pair, self.name).permutation(len(self.kinds))
        drawn = {
            kind: changed
            for kind in (self.kinds[i] for i in order)
            if (changed := self._changed(pair, kind, generator_for(setting, pair, f"{self.name} {kind}")))
        }
        faces = torch.stack([pair.reference, pair.probe, *(changed.face for changed in drawn.values())])
        units = setting.embed(faces)
        scores = setting.compare(units[1:], units[:1]).double().tolist()
        return [
            _Tried(*one, setting.as_cosine(score - scores[0]))
            for one, score in zip(drawn.items(), scores[1:], strict=True)
        ]

    def _changed(self, pair: EvaluationPair, kind: str, rng: np.random.Generator) -> Changed | None:
        """The probe with something over it; None if it cannot be had."""
        face = pair.probe.numpy().transpose(1, 2, 0) / 255
        drawn = occlude(face, landmarks_of(pair.probe_regions), kind, rng)
        return Changed(as_pixels(drawn.image), drawn.covered, pair.probe_regions)

    def _scores(
        self, one: _Tried, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[tuple[str, float]]:
        _, reference = pair.images(setting.recognizer)
        changed = one.changed
        probe = (changed.face[None] / 255).to(reference)
        attribution = self._attributions.of(method, setting)
        after = explained_probe(attribution, probe, reference, setting.embed(pair.reference[None]))
        if method.name in CHANCE_BASELINES:  # which have no signs of their own
            after = -after
        before = changed.carried(clean_map(method.name, maps[0]))
        yield from scores_of_map(after, changed.covered, changed.regions, -1)
        yield from scores_of_change(before, after, changed.covered, changed.regions, one.moved)


def _is_part(changed: Changed) -> bool:
    """Whether it covers some of the face, but not all."""
    share = float(changed.covered[changed.regions.face].mean())
    return 0.005 <= share <= 0.75
