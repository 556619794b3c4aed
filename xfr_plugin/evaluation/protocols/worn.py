"""Occluders in photographs as they were taken: glasses, hats, beards, hands, found by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.attr.registry import Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.occluders.covered import CoveredPair
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._changes import changed_regions, clean_map, scores_of_map
from xfr_plugin.evaluation.protocols._shared import Attributions, explained_probe
from xfr_plugin.evaluation.protocols.planted_evidence.scores import candidate_masks
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE

__all__ = ["Worn"]


class Worn(MethodProtocol):
    """Genuine pairs of which one photograph has something over the face; what is covered argues against a match.

    Ours. Which photographs of LFW's test people have what, and over which named regions, was written down by hand; a
    list of one's own can be given, see `read_pair_list`. Measured of the covered probe's map: `auc`, `stands out`,
    `right sign`, `top1`, `chance`, see `_changes.scores_of_map`. The person's photo without it is explained against
    the same reference: `lower`, 1 if the mean evidence of what is covered is lower than that of the same regions
    there; `falls most`, 1 if, of all regions, the one whose mean evidence is lower by most is one of them.

    1 explanation of the probe.
    """

    name = "worn"
    title = "Occluders worn in photographs"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "auc": True,
        "stands out": True,
        "right sign": True,
        "top1": True,
        "lower": True,
        "falls most": True,
    }
    judges: Literal["genuine", "impostor", "all"] = "genuine"
    sides: Literal["both", "probe"] = "probe"
    covered = True

    def __init__(self) -> None:
        self._attributions = Attributions()

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Explain the photo without it, and compare."""
        if not isinstance(pair, CoveredPair):
            raise InputError("what is worn can only be judged on pairs of which it is known")
        covered = pair.probe_regions.mask(*pair.cover.regions)
        if not (covered & pair.probe_regions.face).any():
            return
        for metric, value in scores_of_map(maps[0], covered, pair.probe_regions, -1):
            yield Measurement("", metric, value)
        before = clean_map(method.name, self._explained_clean(pair, method, setting))
        true = changed_regions(candidate_masks(pair.probe_regions), covered)
        falls = _falls(before, maps[0], pair)
        yield Measurement("", "falls most", float(max(falls, key=lambda name: falls[name]) in true))
        same = pair.clean_regions.mask(*pair.cover.regions)
        if same.any():
            yield Measurement("", "lower", float(maps[0][covered].mean() < before[same].mean()))

    def salient_sign(self, pair: EvaluationPair) -> int:
        """It argues against."""
        return -1

    def slices(self, facts: Mapping[str, object]) -> tuple[str, ...]:
        """All; those whose score is lower than without it by more than `MIN_SCORE_CHANGE`; and by kind."""
        fell = float(np.float64(facts["moved"])) < -MIN_SCORE_CHANGE  # type: ignore[arg-type]  # a number
        return ("", *((f"moved > {MIN_SCORE_CHANGE:g}",) if fell else ()), str(facts["kind"]))

    def _explained_clean(self, pair: CoveredPair, method: Method, setting: Setting) -> NDArray[np.float32]:
        probe, reference = replace(pair, probe=pair.clean).images(setting.recognizer)
        partner = setting.embed(pair.reference[None]).to(reference)
        return explained_probe(self._attributions.of(method, setting), probe, reference, partner)


def _falls(before: NDArray[np.float32], after: NDArray[np.float32], pair: CoveredPair) -> dict[str, float]:
    """By how much the mean evidence of each region that both photos show is lower in the covered one."""
    first, second = (_means(*side) for side in ((before, pair.clean_regions), (after, pair.probe_regions)))
    return {name: first[name] - second[name] for name in second if name in first} or {"": 0.0}


def _means(values: NDArray[np.float32], regions: RegionMap) -> dict[str, float]:
    return {name: float(values[mask].mean()) for name, mask in candidate_masks(regions).items()}
