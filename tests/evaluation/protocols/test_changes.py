"""Occluders and plantings before and after: a map that knows what was changed is right, its negative is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.protocol_toys import SIZE, WINDOW, a_pair, random_pair_maps, value_of, window_recognizer
from torch import Tensor

from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr.registry import Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, Setting
from xfr_plugin.evaluation.protocols._changes import changed_regions, share_inside
from xfr_plugin.evaluation.protocols.occluders import Occluders
from xfr_plugin.evaluation.protocols.paired import Paired
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedPair
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.swaps.planting import Planting

REGIONS = template_regions(SIZE)
SOLID = (
    "bar over the eyes",
    "scarf",
    "surgical mask",
    "eye patch",
)  # of which the edge is not all, on a tiny face
EMPTY = np.zeros(SIZE, np.float32)


def _told(untouched: Tensor, sign: int) -> Method:
    """A method that points at what differs from an untouched face."""

    class Told(PairAttribution):
        def _attribute_pair(self, pair: Pair) -> Tensor:
            differs = (pair.images - untouched).abs().amax(dim=1, keepdim=True) > 0.02
            return sign * differs.to(pair.images).expand_as(pair.images) / 3

    return Method("told", "Told", Told, "", 2024, "scores", "", "")


def _occluded(sign: int, seed: int = 1) -> list[Measurement]:
    pair, setting = a_pair(seed=3), Setting(window_recognizer(), 0.5, seed)
    method = _told(pair.images(setting.recognizer)[0], sign)
    return list(Occluders(kinds=SOLID).judge(pair, (EMPTY, EMPTY), method, setting))


def test_a_map_that_knows_the_occluder_is_right_and_its_negative_wrong() -> None:
    right, wrong = _occluded(-1), _occluded(1)
    for metric in ("auc", "change auc"):
        assert value_of(right, metric, "") > 0.8 > 0.2 > value_of(wrong, metric, "")
    for metric in ("stands out", "right sign", "direction"):
        assert (value_of(right, metric, ""), value_of(wrong, metric, "")) == (1, 0)
    assert value_of(right, "change inside", "") > 0.7
    assert value_of(right, "explained") == 2
    kinds = [m.variant for m in right if m.metric == "auc" and m.variant]
    assert len(kinds) == 2
    assert all(value_of(right, "moves", kind) == 1 for kind in kinds)


def test_occluders_follow_from_the_seed() -> None:
    assert _occluded(-1) == _occluded(-1)
    assert _occluded(-1) != _occluded(-1, seed=5)


def test_chance_is_judged_by_its_maps_and_never_fails() -> None:
    pair, setting = a_pair(), Setting(window_recognizer(), 0.5)
    for method in CHANCE_BASELINES.values():
        found = list(Occluders(count=1).judge(pair, random_pair_maps(), method, setting))
        assert 0 <= value_of(found, "change auc", "") <= 1
    assert value_of(found, "right sign", "") == 1  # the centre prior gets the sign that is asked for


def _planted_pair(game: str, control: bool = False) -> PlantedPair:
    """A planting of the nose, at which `WindowNet` looks; it takes the probe to the reference, or away from it."""
    plain = a_pair(genuine=game == "dissimilar")
    nose = torch.from_numpy(REGIONS.mask("nose"))
    assert nose[WINDOW[0], WINDOW[1]].any()
    other = plain.reference if game == "similar" else 255 - plain.reference
    planting = Planting(
        game=game, region="nose", probe="a/1.png", reference="b/1.png", donor="c/1.png", control=control
    )
    probe = torch.where(nose, other, plain.probe)
    return PlantedPair(**vars(replace(plain, probe=probe)), planting=planting, before=plain.probe)


@pytest.mark.parametrize("game", ["similar", "dissimilar"])
def test_the_change_of_a_map_is_judged_where_the_score_went(game: str) -> None:
    pair, setting = _planted_pair(game), Setting(window_recognizer(), 0.5)
    sign = 1 if game == "similar" else -1
    nose = REGIONS.mask("nose").astype(np.float32)
    method = _told(pair.before[None].double() / 255, sign)
    right, wrong = (
        list(Paired().judge(pair, (direction * sign * nose, EMPTY), method, setting)) for direction in (1, -1)
    )
    assert value_of(right, "change auc") > 0.9 > 0.1 > value_of(wrong, "change auc")
    assert (value_of(right, "change inside"), value_of(wrong, "change inside")) == (1, -1)
    assert (value_of(right, "change top1"), value_of(right, "direction")) == (1, 1)
    assert value_of(right, "chance") == pytest.approx(1 / 7)


def test_what_was_there_before_does_not_count() -> None:
    pair, setting = _planted_pair("similar"), Setting(window_recognizer(), 0.5)

    class Always(PairAttribution):
        def _attribute_pair(self, pair: Pair) -> Tensor:
            return torch.ones_like(pair.images)

    method = Method("always", "Always", Always, "", 2024, "scores", "", "")
    after = 3 * np.ones(SIZE, np.float32) + REGIONS.mask("nose")
    found = list(Paired().judge(pair, (after.astype(np.float32), EMPTY), method, setting))
    assert value_of(found, "change inside") == 1


def test_controls_and_plain_pairs_have_nothing_to_find() -> None:
    setting = Setting(window_recognizer(), 0.5)
    pair = _planted_pair("similar", control=True)
    assert not list(Paired().judge(pair, random_pair_maps(), _told(pair.before, 1), setting))
    unplanted: EvaluationPair = a_pair()
    with pytest.raises(InputError, match="planted"):
        list(Paired().judge(unplanted, random_pair_maps(), _told(unplanted.probe, 1), setting))


def test_an_even_change_has_the_share_of_the_area() -> None:
    changed = REGIONS.mask("mouth")
    assert share_inside(np.ones(SIZE), changed, REGIONS) == pytest.approx(changed.mean())
    assert np.isnan(share_inside(np.zeros(SIZE), changed, REGIONS))


def test_a_region_counts_as_changed_from_half_of_it_on() -> None:
    masks = {name: REGIONS.mask(name) for name in ("nose", "mouth", "chin")}
    assert changed_regions(masks, REGIONS.mask("nose", "mouth")) == {"nose", "mouth"}
    corner = np.zeros(SIZE, bool)
    row, column = np.argwhere(masks["chin"])[0]
    corner[row, column] = True
    assert changed_regions(masks, corner) == {"chin"}
