"""What protocols share, and what holds for all of them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from helpers.protocol_toys import SIZE, a_pair, random_pair_maps

from xfr_plugin.attr.registry import METHODS
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.protocol import MapProtocol, MethodProtocol, Setting
from xfr_plugin.evaluation.protocols import PROTOCOLS
from xfr_plugin.evaluation.protocols._shared import (
    Attributions,
    chosen,
    curve_mean,
    generator_for,
    rank_correlation,
    saliency_of,
    salient_order,
)
from xfr_plugin.evaluation.protocols.infidelity import Infidelity
from xfr_plugin.evaluation.protocols.patch_replacement import PatchReplacement
from xfr_plugin.explanation.comparison import rank_agreement
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition import Provenance, Recognizer


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_what_it_is(name: str) -> None:
    protocol = PROTOCOLS[name]()
    assert protocol.name == name
    assert isinstance(protocol, MapProtocol | MethodProtocol)
    assert protocol.title
    assert protocol.higher_is_better
    assert protocol.judges in ("genuine", "impostor", "all")
    options = inspect.signature(type(protocol)).parameters
    assert set(protocol.settings()) <= set(options)


def test_rank_correlation_is_that_of_compare() -> None:
    face = template_regions(SIZE)
    maps = random_pair_maps()
    verification = Verification(
        score=0.5, threshold=0.2, threshold_source="given", recognizer="small", provenance=Provenance()
    )
    image = np.zeros((*SIZE, 3), np.uint8)
    explanations = [
        Explanation(verification, *(FaceExplanation(image, side, (), face) for _ in range(2)), "m")
        for side in maps
    ]
    for smoothing in (0.0, 0.04):
        expected = rank_agreement(explanations, face, smoothing).probe[0, 1]
        assert rank_correlation(maps[0], maps[1], face.face, smoothing) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(maps[0], -maps[0], face.face) == pytest.approx(-1)
    assert np.isnan(rank_correlation(maps[0], np.zeros(SIZE, np.float32), face.face))


def test_orders_saliency_and_areas() -> None:
    rng = np.random.default_rng(0)
    values = np.array([[1.0, 3.0], [3.0, -2.0]])
    orders = {tuple(salient_order(values, rng).tolist()) for _ in range(30)}
    assert orders == {(1, 2, 0, 3), (2, 1, 0, 3)}
    assert saliency_of(values, True).tolist() == values.tolist()
    assert saliency_of(values, False).tolist() == (-values).tolist()
    assert saliency_of(values, False, "magnitude").tolist() == [[1, 3], [3, 2]]
    assert curve_mean([0, 1, 0]) == 0.5
    assert curve_mean([1, 1]) == 1
    with pytest.raises(InputError, match="faces must be some of"):
        chosen("faces", ("nose",), ("probe", "reference"))


def test_randomness_is_of_pair_seed_and_purpose(recognizer: Recognizer) -> None:
    def drawn(seed: int, name: str, purpose: str) -> float:
        return float(generator_for(Setting(recognizer, 0.2, seed=seed), a_pair(name=name), purpose).random())

    assert drawn(0, "a", "x") == drawn(0, "a", "x")
    assert len({drawn(0, "a", "x"), drawn(1, "a", "x"), drawn(0, "b", "x"), drawn(0, "a", "y")}) == 4


def test_what_needs_no_map_is_asked_once_for_all_methods(recognizer: Recognizer) -> None:
    class Counting(Setting):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            counts.append(len(images))
            return super().embed(images)

    counts: list[int] = []
    pair, other, setting = (
        a_pair(genuine=False),
        a_pair(genuine=False, name="other"),
        Counting(recognizer, 0.2),
    )
    methods = [METHODS["xssab"], CHANCE_BASELINES["chance_random"]]
    for protocol, first, later in ((Infidelity(), 32, 0), (PatchReplacement(), 30, 9)):
        found = []
        for judged, method, cost in (
            (pair, 0, first), (pair, 1, later), (other, 0, first), (pair, 0, first), (pair, 1, later)
        ):  # fmt: skip
            counts.clear()
            if isinstance(protocol, Infidelity):
                found.append(list(protocol.judge(judged, random_pair_maps(method), setting)))
            else:
                found.append(list(protocol.judge(judged, random_pair_maps(), methods[method], setting)))
            assert sum(counts) == cost
        assert found[0] == found[3] != found[1] == found[4]
        assert found[0] != found[2]


def test_attributions_are_built_once(recognizer: Recognizer) -> None:
    setting, known = Setting(recognizer, 0.2), Attributions()
    first = known.of(METHODS["xssab"], setting)
    assert known.of(METHODS["xssab"], setting) is first
    assert known.of(METHODS["occlusion"], setting) is not first
    assert known.of(METHODS["xssab"], Setting(recognizer, 0.3)).threshold == 0.3
