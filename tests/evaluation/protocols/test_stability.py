"""Stability and symmetry against obvious references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.protocol_toys import SIZE, a_pair, random_pair_maps, value_of, window_map
from torch import Tensor

from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr.registry import METHODS, Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols._shared import explained, rank_correlation
from xfr_plugin.evaluation.protocols.stability import Stability, changed_photo, same_region, top_overlap
from xfr_plugin.evaluation.protocols.symmetry import Symmetry, negative_share
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition import Recognizer

CHANGES = ("brightness", "gamma", "contrast", "jpeg", "blur")


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_small_real_and_in_eight_bits(change: str) -> None:
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.integers(40, 200, (2, 3, 14, 14))).double() / 255
    images = torch.nn.functional.interpolate(smooth, (112, 112), mode="bilinear")
    changed = changed_photo(images, change)
    assert changed.shape == images.shape
    assert 0.001 < float((changed - images).abs().mean()) < 0.06
    levels = changed * 255
    assert torch.allclose(levels, levels.round(), atol=1e-6)


def test_changes_are_what_they_are_called() -> None:
    image = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    expected = {
        "brightness": [0.25, 0.65, 1.0],
        "gamma": [0.2**1.15, 0.6**1.15, 1.0],
        "contrast": [0.26, 0.6, 0.94],
    }
    for change, values in expected.items():
        found = changed_photo(image, change)
        assert found[0, :, 3, 3].tolist() == pytest.approx([round(v * 255) / 255 for v in values])


def test_stability_compares_with_the_changed_photo(recognizer: Recognizer) -> None:
    pair, method, setting = a_pair(), METHODS["xssab"], Setting(recognizer, 0.2)
    probe, reference = pair.images(recognizer)
    maps = explained(method.build(recognizer, 0.2), (probe, reference))
    measured = list(Stability(changes=("contrast",), count=1).judge(pair, maps, method, setting))
    mean = sum(float(v) for v in probe.flatten()) / probe.numel()
    photo = ((mean + 0.85 * (probe - mean)).clamp(0, 1) * 255).round() / 255
    found = explained(method.build(recognizer, 0.2), (photo, reference))[0]
    assert value_of(measured, "decision_kept", "contrast") == 1
    expected = rank_correlation(maps[0], found, pair.probe_regions.face)
    assert value_of(measured, "rank_correlation") == pytest.approx(expected, abs=1e-5)
    assert value_of(measured, "top_overlap") < 1


def test_a_turned_decision_is_not_held_against_the_map(recognizer: Recognizer) -> None:
    pair = a_pair(genuine=False)
    probe, reference = pair.images(recognizer)
    photo = changed_photo(probe, "gamma")
    clean, changed = (recognizer.embed(torch.cat([probe, photo])) @ recognizer.embed(reference).T).flatten()
    setting = Setting(recognizer, float(clean + changed) / 2)
    protocol = Stability(changes=("gamma",), count=1)
    measured = list(protocol.judge(pair, random_pair_maps(), METHODS["xssab"], setting))
    assert [(m.metric, m.value) for m in measured] == [("decision_kept", 0.0)]


def test_a_map_of_nothing_is_stable_and_pairs_get_different_changes(recognizer: Recognizer) -> None:
    setting, baseline, protocol = Setting(recognizer, 0.2), CHANCE_BASELINES["chance_centre"], Stability()
    maps = explained(baseline.build(recognizer, 0.2), a_pair().images(recognizer))
    drawn = set()
    for name in "abcdefghijkl":
        measured = list(protocol.judge(a_pair(name=name), maps, baseline, setting))
        variants = {m.variant for m in measured}
        drawn |= variants
        assert len(variants) == 2
        assert all(m.value == pytest.approx(1) for m in measured)
    assert drawn == set(CHANGES)


def test_top_overlap_and_same_region() -> None:
    first, second = random_pair_maps()
    face, regions = template_regions(SIZE).face, template_regions(SIZE)
    count = round(0.1 * face.sum())
    tops = []
    for side in (first, second):
        values = sorted(((side[r, c], (r, c)) for r, c in zip(*np.nonzero(face), strict=True)), reverse=True)
        tops.append({place for _, place in values[:count]})
    assert top_overlap(first, second, face) == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
    assert top_overlap(first, first, face) == 1
    assert np.isnan(top_overlap(first, np.zeros(SIZE), face))
    mouth, nose = regions.mask("mouth") * 1.0, regions.mask("nose") * 1.0
    assert same_region(mouth, 2 * mouth + nose, regions)
    assert not same_region(mouth, nose, regions)


class Lopsided(PairAttribution):
    """Points at the window in the first face of a pair, and argues against the second."""

    def _attribute_pair(self, pair: Pair) -> Tensor:
        window = torch.from_numpy(window_map()).to(pair.images).expand_as(pair.images) / 3
        maps = window.clone()
        maps[len(maps) // 2 :] *= -1
        return maps


def test_swapped_faces_have_swapped_maps_or_are_found_out(recognizer: Recognizer) -> None:
    setting, protocol = Setting(recognizer, 0.2), Symmetry()
    images = a_pair().images(recognizer)
    method = METHODS["xssab"]
    fair = list(protocol.judge(a_pair(), explained(method.build(recognizer, 0.2), images), method, setting))
    assert value_of(fair, "swap_correlation") == pytest.approx(1)
    assert value_of(fair, "swap_difference") == pytest.approx(0, abs=1e-5)
    same = explained(method.build(recognizer, 0.2), (images[0], images[0]))
    shares = [
        sum(-float(v) for v in side.ravel() if v < 0) / sum(abs(float(v)) for v in side.ravel())
        for side in same
    ]
    assert value_of(fair, "identical_negative") == pytest.approx(sum(shares) / 2, rel=1e-5)
    lopsided = Method("lopsided", "", Lopsided, "", 2024, "scores", "", "")
    maps = explained(lopsided.build(recognizer, 0.2), images)
    unfair = list(protocol.judge(a_pair(), maps, lopsided, setting))
    assert value_of(unfair, "swap_correlation") == pytest.approx(-1)
    assert value_of(unfair, "swap_difference") == pytest.approx(2)
    assert value_of(unfair, "identical_negative") == pytest.approx(0.5)


def test_an_identical_pair_is_not_asked_about_beyond_one(recognizer: Recognizer) -> None:
    measured = list(
        Symmetry().judge(a_pair(), random_pair_maps(), METHODS["xssab"], Setting(recognizer, 1.0))
    )
    assert {m.metric for m in measured} == {"swap_correlation", "swap_difference"}
    assert negative_share(np.array([[1.0, -3.0]])) == 0.75
    assert negative_share(np.zeros((2, 2))) == 0


def test_options_are_checked() -> None:
    for options in ({"changes": ("rain",)}, {"count": 0}, {"count": 6}, {"smoothing": -0.1}):
        with pytest.raises(InputError):
            Stability(**options)
    with pytest.raises(InputError):
        Symmetry(smoothing=2)
