"""What regions truly contribute: against plain loops; and how what is said of them is compared with it."""

from __future__ import annotations

from itertools import combinations
from math import factorial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluation_faces import PEOPLE, judge, small_recognizer

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.natural.agreement import Regional, agreements
from xfr_plugin.evaluation.natural.strangers import pose_matched
from xfr_plugin.evaluation.natural.truth import (
    OPERATORS,
    Operator,
    coalition_embeddings,
    coalitions,
    player_masks,
    shapley_matrix,
)
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols.natural import Natural
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.regions import template_regions

SIZE = (24, 20)


def test_shapley_values_are_those_of_the_definition() -> None:
    values, players = np.random.default_rng(0).standard_normal(2**4), range(4)
    for player in players:
        expected, others = 0.0, [p for p in players if p != player]
        for size in range(4):
            for group in combinations(others, size):
                weight = factorial(size) * factorial(3 - size) / factorial(4)
                without = sum(1 << p for p in group)
                expected += weight * (values[without | 1 << player] - values[without])
        assert (shapley_matrix(4) @ values)[player] == pytest.approx(expected)
    assert (shapley_matrix(4) @ values).sum() == pytest.approx(values[-1] - values[0])
    assert coalitions(4)[0b0110].tolist() == [False, True, True, False]


def test_players_divide_the_crop() -> None:
    masks = player_masks(template_regions())
    assert (masks.sum(axis=0) == 1).all()
    assert not (masks[-1] & template_regions().face).any()


@pytest.mark.parametrize("operator", OPERATORS)
def test_coalitions_run_from_the_empty_face_to_the_whole(operator: Operator) -> None:
    rng = np.random.default_rng(1)
    face, other = (torch.from_numpy(rng.integers(0, 256, (3, *SIZE)).astype(np.uint8)) for _ in range(2))
    found = coalition_embeddings(face, template_regions(SIZE), operator, lambda x: x.flatten(1), [other])
    assert found.shape == (256, 3 * SIZE[0] * SIZE[1])
    assert np.allclose(found[-1], face.flatten() / 255, atol=1e-6)
    assert np.abs(found[0] - found[-1]).mean() > 0.05
    masks, without_mouth = player_masks(template_regions(SIZE)), found[255 - 8].reshape(3, *SIZE)
    changed = np.abs(without_mouth - face.numpy() / 255).max(axis=0) > 1e-3
    assert coalitions(8)[255 - 8].argmin() == 3
    assert changed[masks[3]].all()
    assert not changed[: SIZE[0] // 3].any()


def test_strangers_are_other_people_and_follow_from_the_seed(faces: Path) -> None:
    folder = FaceFolder(faces, SIZE)
    files = (f"{PEOPLE[0]}/0.png", f"{PEOPLE[1]}/0.png")
    found = pose_matched(folder, PEOPLE, files, 4, seed=3)
    assert len(set(found)) == 4
    assert not {Path(file).parent.name for file in found} & set(PEOPLE[:2])
    assert found == pose_matched(folder, PEOPLE[::-1], files, 4, seed=3)
    with pytest.raises(InputError, match="other people"):
        pose_matched(folder, PEOPLE[:3], files, 4, seed=3)


def test_the_truth_agrees_with_itself_and_not_with_its_negative() -> None:
    rng = np.random.default_rng(0)
    area = rng.random(7)
    truth = Regional(rng.standard_normal(7), area / area.sum(), 0.3)
    assert all(value == pytest.approx(1) for value in agreements(truth.true, truth, 0.3).values())
    margin = agreements(truth.true - 0.3 * truth.area, truth)
    assert (margin["sign"], margin["density"]) == pytest.approx((1, 1))
    worst = agreements(-truth.true, truth, -0.3)
    assert worst["total"] == pytest.approx(-1)
    assert worst["sign"] == worst["most for"] == 0


def test_an_even_map_says_nothing_and_a_hidden_region_does_not_count() -> None:
    truth = Regional(np.arange(7.0), np.full(7, 1 / 7), 0.0)
    assert np.isnan(agreements(truth.area, truth)["density"])
    hidden = truth._replace(area=np.array([0, 1, 1, 1, 1, 1, 1]) / 6)
    said = truth.true.copy()
    said[0] = 100
    assert agreements(said, hidden)["total"] == pytest.approx(1)


def test_a_run_has_rows_beside_the_methods_and_computes_each_truth_once(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocols = [Natural(operators=("strangers", "blur"), strangers=2)]
    results = judge(faces, tmp_path, protocols=protocols, methods=["input_x_gradient"], limit=8)
    rows = {(r.slice, r.variant, r.metric, r.method): r.mean for r in results.summary() if r.at is None}
    for kind in ("genuine", "impostor"):
        for variant in ("strangers", "blur"):
            for method in ("input_x_gradient", "ceiling", "constant", "chance_random"):
                assert -1 <= rows[kind, variant, "density", method] <= 1
            assert abs(rows[kind, variant, "specific", "ceiling"]) <= 1
            assert -1 <= rows[kind, variant, "total", "area"] <= 1
    assert results.methods[0] == "input_x_gradient"
    assert "*Noise ceiling*" in (results.save(tmp_path) and (tmp_path / "results.md").read_text())
    assert len(list((tmp_path / "truth").iterdir())) <= 8

    def again(*_: object) -> None:
        raise AssertionError("a truth was computed twice")

    monkeypatch.setattr("xfr_plugin.evaluation.protocols.natural.coalition_embeddings", again)
    more = judge(faces, tmp_path, protocols=protocols, methods=["xssab"], limit=8)
    assert not more.failures


def test_without_a_folder_there_are_no_strangers() -> None:
    from helpers.protocol_toys import a_pair, random_pair_maps

    with pytest.raises(InputError, match="folder of faces"):
        list(Natural().judge(a_pair(), random_pair_maps(), Setting(small_recognizer(), 0.2)))
