"""Captum's infidelity and sensitivity, as protocols, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.protocol_toys import SIZE, a_pair, random_pair_maps, value_of, window_map, window_recognizer
from numpy.typing import NDArray

from xfr_plugin.attr._base.scoring import gaussian_blurred
from xfr_plugin.attr.registry import METHODS
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols._shared import generator_for
from xfr_plugin.evaluation.protocols.infidelity import Infidelity, square_masks
from xfr_plugin.evaluation.protocols.sensitivity import Sensitivity
from xfr_plugin.recognition import Recognizer


@pytest.mark.parametrize("genuine", [True, False])
def test_infidelity_is_that_of_plain_loops(recognizer: Recognizer, genuine: bool) -> None:
    pair, maps, setting = a_pair(genuine), random_pair_maps(), Setting(recognizer, 0.2)
    protocol = Infidelity(samples=12)
    measured = list(protocol.judge(pair, maps, setting))
    probe, reference = pair.images(recognizer)
    fill = gaussian_blurred(probe, 8.0)
    masks = square_masks(12, SIZE, protocol.squares, generator_for(setting, pair, "infidelity"))
    with torch.no_grad():
        partner = recognizer(reference)[0]
        clean = float(recognizer(probe)[0] @ partner)
        foretold, falls = [], []
        for mask in masks:
            shown = probe.clone()
            total = 0.0
            for row in range(SIZE[0]):
                for column in range(SIZE[1]):
                    if mask[row, column]:
                        shown[0, :, row, column] = fill[0, :, row, column]
                        total += float(maps[0][row, column])
            foretold.append(total)
            falls.append(clean - float(recognizer(shown)[0] @ partner))
    best = min(_error(float(beta), foretold, falls) for beta in np.linspace(-0.01, 0.01, 20001))
    moved = float(np.mean(np.square(falls)))
    assert value_of(measured, "infidelity") == pytest.approx(best, rel=1e-4)
    assert value_of(measured, "unexplained") == pytest.approx(best / moved, rel=1e-4)
    assert value_of(measured, "alignment") ** 2 == pytest.approx(1 - best / moved, abs=1e-4)


def _error(beta: float, foretold: list[float], falls: list[float]) -> float:
    return sum((beta * a - b) ** 2 for a, b in zip(foretold, falls, strict=True)) / len(falls)


def test_the_place_that_is_looked_at_foretells_the_score() -> None:
    setting, pair = Setting(window_recognizer(), 0.5), a_pair()
    unit, protocol = window_map(), Infidelity(samples=40)
    right, wrong, noise, empty = (
        list(protocol.judge(pair, (side, side), setting))
        for side in (unit, -unit, random_pair_maps()[0], np.zeros_like(unit))
    )
    assert value_of(right, "alignment") > 0.6
    assert value_of(wrong, "alignment") == pytest.approx(-value_of(right, "alignment"))
    assert value_of(wrong, "unexplained") == pytest.approx(value_of(right, "unexplained"))
    assert value_of(right, "unexplained") < value_of(noise, "unexplained")
    assert value_of(empty, "unexplained") == pytest.approx(1)
    assert value_of(empty, "alignment") == 0
    outside = Infidelity(samples=3, squares=(0.05,), fill="mean")
    flat = a_pair()
    flat.probe[:] = 90  # its mean colour is all it has: nothing that is hidden moves the score
    assert math.isnan(value_of(list(outside.judge(flat, (unit, unit), setting)), "unexplained"))


def test_squares_fit_and_are_everywhere() -> None:
    masks = square_masks(3000, SIZE, (0.25, 0.5), np.random.default_rng(0))
    assert masks.any(axis=0).all()
    for mask in masks:
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        assert len(rows) == len(columns)
        assert len(rows) in (6, 12)
        assert mask.sum() == len(rows) ** 2


def _explained(recognizer: Recognizer, probe: torch.Tensor, partner: torch.Tensor) -> NDArray[np.float64]:
    attribution = METHODS["xssab"].build(recognizer, 0.2)
    return attribution.attribute(probe, additional_forward_args=partner)[0].sum(dim=0).numpy()


def test_sensitivity_is_that_of_plain_loops(recognizer: Recognizer) -> None:
    pair, setting, maps = a_pair(), Setting(recognizer, 0.2), random_pair_maps()
    protocol = Sensitivity(samples=3, radius=0.05)
    measured = list(protocol.judge(pair, maps, METHODS["xssab"], setting))
    again = list(Sensitivity(samples=3, radius=0.05, at_once=1).judge(pair, maps, METHODS["xssab"], setting))
    probe, reference = pair.images(recognizer)
    partner = recognizer.embed(reference)
    clean, rng, found = (
        _explained(recognizer, probe, partner),
        generator_for(setting, pair, "sensitivity"),
        [],
    )
    for _ in range(3):
        noise = torch.from_numpy(rng.uniform(-0.05, 0.05, (1, 3, *SIZE)))
        changed = _explained(recognizer, (probe + noise).clamp(0, 1), partner)
        distance = math.sqrt(sum(float(x) ** 2 for x in (changed - clean).ravel()))
        found.append(distance / math.sqrt(sum(float(x) ** 2 for x in clean.ravel())))
    assert value_of(measured, "sensitivity_max") == pytest.approx(max(found), rel=1e-9)
    assert value_of(again, "sensitivity_max") == pytest.approx(max(found), rel=1e-9)


def test_a_map_that_does_not_look_is_not_sensitive(recognizer: Recognizer) -> None:
    setting, state = Setting(recognizer, 0.2), torch.random.get_rng_state()
    for name, expected in (("chance_centre", 0.0), ("chance_random", math.sqrt(2))):
        measured = list(Sensitivity().judge(a_pair(), random_pair_maps(), CHANCE_BASELINES[name], setting))
        assert value_of(measured, "sensitivity_max") == pytest.approx(expected, abs=0.15)
    assert torch.equal(state, torch.random.get_rng_state())
    scores = list(Sensitivity().judge(a_pair(), random_pair_maps(), METHODS["occlusion"], setting))
    assert value_of(scores, "sensitivity_max") > 0


def test_options_are_checked() -> None:
    for options in ({"samples": 0}, {"squares": ()}, {"squares": (1.5,)}, {"fill": "white"}):
        with pytest.raises(InputError):
            Infidelity(**options)
    for options in ({"samples": 0}, {"radius": 0.0}, {"at_once": 0}):
        with pytest.raises(InputError):
            Sensitivity(**options)
