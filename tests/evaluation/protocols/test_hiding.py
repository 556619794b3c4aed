"""The hiding game against sets of pixels, and on a planted pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.protocol_toys import SIZE, a_pair, random_pair_maps, value_of, values_of

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols.hiding import Hiding, hiding_scores
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedPair
from xfr_plugin.recognition import Recognizer
from xfr_plugin.swaps.planting import Planting


def test_scores_are_those_of_sets() -> None:
    rng = np.random.default_rng(0)
    saliency, truth, face = rng.standard_normal((9, 8)), rng.random((9, 8)) < 0.3, rng.random((9, 8)) < 0.8
    found = hiding_scores(saliency, truth, face, steps=7)
    pixels = [(r, c) for r in range(9) for c in range(8) if face[r, c]]
    ranked = sorted(pixels, key=lambda place: -saliency[place])
    true = {place for place in pixels if truth[place]}
    for step in range(8):
        top = set(ranked[: round(step / 7 * len(pixels))])
        assert found.percent[step] == pytest.approx(100 * step / 7)
        assert found.covered[step] == pytest.approx(len(top & true) / len(true))
        assert found.iou[step] == pytest.approx(len(top & true) / len(top | true))
        if top:
            assert found.inside[step] == pytest.approx(len(top & true) / len(top))
    assert math.isnan(found.inside[0])
    area = sum((found.covered[i] + found.covered[i + 1]) / 2 / 7 for i in range(7))
    assert found.covered_auc == pytest.approx(area)
    same = set(ranked[: len(true)])
    assert found.iou_at_area == pytest.approx(len(same & true) / len(same | true))


def test_the_truth_is_right_its_opposite_wrong_and_a_flat_map_neither() -> None:
    truth, face = np.zeros(SIZE, bool), np.ones(SIZE, bool)
    truth[5:12, 4:10] = True
    right, wrong, flat = (
        hiding_scores(sign * truth.astype(float), truth, face, steps=50) for sign in (1, -1, 0)
    )
    assert right.iou_at_area == 1
    assert wrong.iou_at_area == 0
    assert 0.02 < flat.iou_at_area < 0.12
    assert right.covered_auc > 0.95 > 0.58 > flat.covered_auc > 0.42 > 0.05 > wrong.covered_auc
    with pytest.raises(InputError, match="touch"):
        hiding_scores(truth * 1.0, truth, ~truth)
    with pytest.raises(InputError, match="size"):
        hiding_scores(truth[1:] * 1.0, truth, face)


@pytest.mark.parametrize("game", ["similar", "dissimilar"])
def test_a_planted_pair_is_judged_by_its_game(game: str, recognizer: Recognizer) -> None:
    planting = Planting(game=game, region="mouth", probe="a.png", reference="b.png", donor="c.png")
    plain = a_pair(genuine=game == "dissimilar")
    pair = PlantedPair(**vars(plain), planting=planting, before=plain.probe)
    mouth = pair.probe_regions.mask("mouth").astype(np.float32)
    sign, empty = (1 if game == "similar" else -1), np.full(SIZE, np.nan, np.float32)
    protocol, setting = Hiding(steps=10, smoothing=0), Setting(recognizer, 0.2)
    assert protocol.salient_sign(pair) == sign
    best = list(protocol.judge(pair, (sign * mouth, empty), setting))
    worst = list(protocol.judge(pair, (-sign * mouth, empty), setting))
    assert value_of(best, "iou_at_area", game) == 1
    assert value_of(worst, "iou_at_area", game) == 0
    assert value_of(best, "covered_auc") > 0.9 > 0.1 > value_of(worst, "covered_auc")
    assert list(values_of(best, "covered")) == [10.0 * i for i in range(1, 11)]


def test_other_pairs_and_options_are_refused(recognizer: Recognizer) -> None:
    with pytest.raises(InputError, match="planted"):
        list(Hiding().judge(a_pair(), random_pair_maps(), Setting(recognizer, 0.2)))
    for options in ({"steps": 0}, {"smoothing": 1.0}):
        with pytest.raises(InputError):
            Hiding(**options)
    assert Hiding().settings() == {"steps": 20, "smoothing": 0.04}
