"""Where did the score go: a pair before and after a planting, both explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.registry import Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._changes import changed_regions, clean_map, scores_of_change
from xfr_plugin.evaluation.protocols._shared import Attributions, explained_probe
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedPair
from xfr_plugin.evaluation.protocols.planted_evidence.scores import candidate_masks
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE, effect_of, named_regions

__all__ = ["Paired"]


class Paired(MethodProtocol):
    """A region is planted into the probe, the score moves, and the change of the map must lie on the region.

    Ours. It takes natural differences between the faces out of the question: they are in both maps. Judged are
    plantings (one region, two regions) that move the score by more than `MIN_SCORE_CHANGE` in the direction of their
    game; of the others, and of controls, there is nothing to find. Measured: `change auc`, `change top1`,
    `change inside`, `direction`, see `_changes.scores_of_change`; `chance`, what `change top1` is for a guess.

    2 forwards; 1 explanation of the probe.
    """

    name = "paired"
    title = "Where did the score go (plantings)"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "change auc": True,
        "change top1": True,
        "change inside": True,
        "direction": True,
    }
    sides: Literal["both", "probe"] = "probe"
    planted = True

    def __init__(self) -> None:
        self._attributions = Attributions()

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Explain the probe before the planting, and compare."""
        if not isinstance(pair, PlantedPair):
            raise InputError("before and after can only be compared on planted pairs")
        planting, regions = pair.planting, pair.probe_regions
        faces = torch.stack([pair.reference, pair.before, pair.probe])
        partner, *both = setting.embed(faces).double().split(1)
        before, after = setting.compare(torch.cat(both), partner).tolist()
        moved = setting.as_cosine(after - before)
        if planting.control or effect_of(planting.game, moved) <= MIN_SCORE_CHANGE:
            return
        changed = regions.mask(*named_regions(planting.region))
        candidates = candidate_masks(regions)
        yield Measurement("", "chance", len(changed_regions(candidates, changed)) / len(candidates))
        clean = self._explained_before(pair, partner, method, setting)
        for metric, value in scores_of_change(
            clean_map(method.name, clean), maps[0], changed, regions, moved
        ):
            yield Measurement("", metric, value)

    def salient_sign(self, pair: EvaluationPair) -> int:
        """The score of a genuine pair falls, that of an impostor pair rises."""
        return -1 if pair.genuine else 1

    def slices(self, facts: Mapping[str, object]) -> tuple[str, ...]:
        """By number of regions, game and blending."""
        if facts["control"] or facts["strength"] != 1:
            return ()
        kind = "two regions" if "+" in str(facts["region"]) else "one region"
        return (kind, f"{kind}, {facts['game']}, {facts['blending']}")

    def _explained_before(
        self, pair: PlantedPair, partner: Tensor, method: Method, setting: Setting
    ) -> NDArray[np.float32]:
        probe, reference = replace(pair, probe=pair.before).images(setting.recognizer)
        attribution = self._attributions.of(method, setting)
        return explained_probe(attribution, probe, reference, partner.to(reference))
