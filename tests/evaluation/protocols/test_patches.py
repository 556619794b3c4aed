"""Patch replacement against loops, and with a map that knows the patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.protocol_toys import SIZE, a_pair, random_pair_maps, value_of, values_of
from torch import Tensor

from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr.registry import METHODS, Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols._shared import generator_for
from xfr_plugin.evaluation.protocols.patch_replacement import PatchReplacement, patch_grid
from xfr_plugin.recognition import Recognizer


class Knowing(PairAttribution):
    """Points at what differs from the untouched probe, with the sign that is right for the pair."""

    untouched: Tensor
    sign: int

    def _attribute_pair(self, pair: Pair) -> Tensor:
        differs = (pair.images - self.untouched).abs().sum(dim=1, keepdim=True) > 0
        return self.sign * differs.to(pair.images).expand_as(pair.images) / 3


def _knowing(genuine: bool, recognizer: Recognizer) -> Method:
    class Told(Knowing):
        untouched = a_pair(genuine).images(recognizer)[0]
        sign = -1 if genuine else 1

    return Method("told", "Told", Told, "", 2024, "scores", "", "")


DONOR = a_pair(genuine=False, seed=9).reference


def test_the_grid_has_seven_rows_and_columns_of_sixteen_pixels() -> None:
    grid = patch_grid((112, 112))
    assert all(
        (grid[16 * r : 16 * r + 16, 16 * c : 16 * c + 16] == 7 * r + c).all()
        for r in range(7)
        for c in range(7)
    )
    assert set(patch_grid(SIZE).ravel().tolist()) == set(range(49))
    assert patch_grid(SIZE, 112).max() == 0
    assert set(patch_grid(SIZE, 1).ravel().tolist()) == set(range(400))  # never an empty patch


@pytest.mark.parametrize("genuine", [True, False])
def test_restoring_is_that_of_plain_loops(recognizer: Recognizer, genuine: bool) -> None:
    pair, setting = a_pair(genuine), Setting(recognizer, 0.2)
    protocol = PatchReplacement(patch=28, steps=4, orders=2, donors=(DONOR,))
    method = METHODS["xssab"]
    measured = list(protocol.judge(pair, random_pair_maps(), method, setting))

    rng, grid = generator_for(setting, pair, "patch_replacement"), patch_grid(SIZE, 28)
    probe, reference = pair.images(recognizer)
    donor = DONOR if genuine else pair.reference
    if genuine:
        rng.integers(1)
    replaced = set(rng.permutation(16)[:5].tolist())
    foreign = probe.clone()
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            if grid[row, column] in replaced:
                foreign[0, :, row, column] = donor[:, row, column].double() / 255
    partner = recognizer.embed(reference)
    found = method.build(recognizer, 0.2).attribute((foreign, reference))[0][0].sum(dim=0).float().numpy()
    means = [float((-found if genuine else found)[grid == cell].astype(float).mean()) for cell in range(16)]
    order = sorted(range(16), key=lambda cell: -means[cell])
    name = "impostor patches" if genuine else "mate patches"
    scores = values_of(measured, "score", name)
    for step in range(5):
        image = foreign.clone()
        for cell in order[: 4 * step]:
            image[0, :, torch.from_numpy(grid == cell)] = probe[0, :, torch.from_numpy(grid == cell)]
        expected = float((recognizer.embed(image) @ partner.T).squeeze())
        assert scores[25.0 * step] == pytest.approx(expected, abs=1e-9)
        assert values_of(measured, "correct", name)[25.0 * step] == ((expected >= 0.2) == genuine)
    margins = [(s - 0.2) * (1 if genuine else -1) for s in scores.values()]
    area = sum((margins[i] + margins[i + 1]) / 8 for i in range(4))
    assert value_of(measured, "margin_auc", name) == pytest.approx(area)
    chance = value_of(measured, "margin_auc", f"{name}, random order")
    assert value_of(measured, "margin_gain", name) == pytest.approx(area - chance)
    assert value_of(measured, "found", name) == len(replaced & set(order[:5])) / 5


@pytest.mark.parametrize("genuine", [True, False])
def test_who_knows_the_patches_restores_them_first(recognizer: Recognizer, genuine: bool) -> None:
    pair, setting = a_pair(genuine), Setting(recognizer, 0.2)
    protocol = PatchReplacement(donors=(DONOR,))
    method = _knowing(genuine, recognizer)
    measured = list(protocol.judge(pair, random_pair_maps(), method, setting))
    name = "impostor patches" if genuine else "mate patches"
    assert value_of(measured, "found", name) == 1
    assert value_of(measured, "margin_gain", name) > 0
    scores = list(values_of(measured, "score", name).values())
    probe, reference = recognizer.embed(torch.cat(pair.images(recognizer)))
    assert scores[-1] == pytest.approx(float(probe @ reference))
    assert all(score == pytest.approx(scores[-1]) for score in scores[4:])
    baseline = list(protocol.judge(pair, random_pair_maps(), CHANCE_BASELINES["chance_centre"], setting))
    assert 0 <= value_of(baseline, "found", name) < 1


def test_genuine_pairs_get_patches_of_nobody_and_options_are_checked(recognizer: Recognizer) -> None:
    assert PatchReplacement(donors=(DONOR,)).settings() != PatchReplacement().settings()
    found = list(
        PatchReplacement().judge(a_pair(), random_pair_maps(), METHODS["xssab"], Setting(recognizer, 0.2))
    )
    assert {m.variant for m in found} == {"impostor patches", "impostor patches, random order"}
    assert all(np.isfinite(m.value) for m in found)
    for options in ({"patch": 0}, {"share": 1.0}, {"steps": 0}, {"orders": 0}):
        with pytest.raises(InputError):
            PatchReplacement(**options)
