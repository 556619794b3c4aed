"""Scores of maps against known regions, against obvious references; and the whole protocol on small pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation import (
    average_maps,
    bootstrap_mean,
    build_pairs,
    centre_prior,
    energy_ratio,
    maps_of,
    most_salient_region,
    pixel_auc,
    plan_plantings,
    points_inside,
    random_maps,
    score_maps,
    summarise,
)
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedEvidence
from xfr_plugin.faces.lfw import image_path, read_mesh_regions, read_people
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.swaps.planted_pairs import PlantedPairs
from xfr_plugin.swaps.planting import named_regions


def test_auc_is_the_probability_of_ranking_right() -> None:
    rng = np.random.default_rng(0)
    saliency = rng.integers(0, 5, (9, 8)).astype(float)
    truth, face = rng.random((9, 8)) < 0.3, rng.random((9, 8)) < 0.8
    inside, outside = saliency[truth & face], saliency[~truth & face]
    wins = [float(a > b) + 0.5 * float(a == b) for a in inside for b in outside]
    assert pixel_auc(saliency, truth, face) == pytest.approx(np.mean(wins))
    with pytest.raises(InputError, match="inside and outside"):
        pixel_auc(saliency, face, face)
    with pytest.raises(InputError, match="differ in size"):
        pixel_auc(saliency[1:], truth, face)


def test_a_map_of_the_truth_has_full_marks_and_a_constant_none() -> None:
    truth = np.zeros((10, 10), bool)
    truth[2:4, 3:6] = True
    face = np.ones_like(truth)
    exact = truth.astype(float)
    assert pixel_auc(exact, truth, face) == 1.0
    assert pixel_auc(np.zeros_like(exact), truth, face) == 0.5
    assert energy_ratio(exact, truth, face) == pytest.approx(100 / 6)
    assert energy_ratio(np.ones_like(exact), truth, face) == pytest.approx(1)
    assert energy_ratio(-np.ones_like(exact), truth, face) == 1.0
    assert points_inside(exact, truth, face)
    assert not points_inside(-exact, truth, face)
    assert most_salient_region(exact, {"there": truth, "rest": ~truth}) == "there"
    with pytest.raises(InputError, match="empty"):
        most_salient_region(exact, {"none": ~face})


def test_bootstrap_interval_holds_the_mean_and_narrows() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    few, many = bootstrap_mean(values[:50]), bootstrap_mean(values)
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    assert many.high - many.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert bootstrap_mean(values) == many


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, dict[str, list[str]]]:
    rng = np.random.default_rng(0)
    people = {f"p{i}": [f"p{i}/{k}.png" for k in range(3)] for i in range(4)}
    for files in people.values():
        (tmp_path / files[0]).parent.mkdir()
        for file in files:
            Image.fromarray(rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)).save(tmp_path / file)
    return tmp_path, people


@pytest.fixture
def planted(recognizer: Recognizer, folder: tuple[Path, dict[str, list[str]]]) -> PlantedPairs:
    plantings = plan_plantings(folder[1], 7, seed=0, regions=("eyes", "nose", "mouth"))
    return build_pairs(recognizer.float(), folder[0], plantings)


def test_pairs_are_scored_before_and_after(planted: PlantedPairs, recognizer: Recognizer) -> None:
    probes, references = (
        recognizer.embed(images.float() / 255) for images in (planted.probes, planted.references)
    )
    scores = (probes * references).sum(dim=1)
    np.testing.assert_allclose(planted.planted, scores.numpy(), atol=1e-6)
    assert np.abs(planted.planted - planted.clean).max() > 0
    assert len(planted) == 14


def test_a_planting_moves_the_score_in_the_direction_of_its_game(planted: PlantedPairs) -> None:
    rows = score_maps("centre", centre_prior(planted), planted)
    for row, planting in zip(rows, planted.plantings, strict=True):
        change = row.planted - row.clean
        assert row.moved == pytest.approx(change if planting.game == "similar" else -change)
    protocol = PlantedEvidence()
    facts = {"region": "nose", "control": False, "strength": 1.0, "blending": "feather"}
    for game, change in (("similar", 0.2), ("dissimilar", -0.2)):
        kept, left = (protocol.slices({**facts, "game": game, "moved": moved}) for moved in (change, -change))
        assert f"{game}, moved > 0.1" in kept
        assert f"{game}, moved > 0.1" not in left
        assert game in left


def test_a_method_that_knows_the_truth_wins_and_chance_does_not(
    planted: PlantedPairs, recognizer: Recognizer
) -> None:
    signs = [1 if p.game == "similar" else -1 for p in planted.plantings]
    truths = [
        labels.mask(*named_regions(p.region))
        for p, labels in zip(planted.plantings, planted.probe_regions, strict=True)
    ]
    exact = np.stack([sign * truth for sign, truth in zip(signs, truths, strict=True)]).astype(np.float32)
    rows = [
        *score_maps("truth", exact, planted, blur=0),
        *score_maps("random", random_maps(planted), planted, blur=0),
        *score_maps("centre", centre_prior(planted), planted),
        *score_maps("average", average_maps(exact, planted), planted),
    ]
    table = {(row.method, row.game): row for row in summarise(rows)}
    for game in ("dissimilar", "similar"):
        assert table["truth", game].auc.mean == 1
        assert table["truth", game].top1.mean == 1
        assert table["random", game].auc.mean < 0.7
        assert table["average", game].auc.mean < 1
    assert table["truth", "similar"].count == 7
    assert [row.game for row in summarise(rows, lambda row: row.moved > 10)] == []


def test_maps_are_sums_over_colours_whatever_the_batch(planted: PlantedPairs, recognizer: Recognizer) -> None:
    def copy(images: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return images

    probe, reference = maps_of(copy, planted, recognizer, batch_size=5)
    np.testing.assert_allclose(probe, planted.probes.numpy().sum(axis=1) / 255, rtol=1e-5)
    np.testing.assert_allclose(reference, planted.references.numpy().sum(axis=1) / 255, rtol=1e-5)


@pytest.mark.real_data
def test_plantings_move_real_scores_the_right_way(faces_root: Path) -> None:
    """A strange nose makes a genuine pair less alike, a mate's nose an impostor pair more."""
    counts = read_people(faces_root / "peopleDevTest.txt")
    people = {
        name: [f for i in range(count) if (faces_root / "lfw112" / (f := image_path(name, i + 1))).is_file()]
        for name, count in counts.items()
    }
    regions_of = read_mesh_regions(faces_root)
    plantings = plan_plantings(people, 24, seed=0, regions=["nose"], regions_of=regions_of)
    pairs = build_pairs(load_recognizer("xfr_compact128"), faces_root / "lfw112", plantings, regions_of)
    change = pairs.planted - pairs.clean
    assert change[:24].mean() < -0.08
    assert change[24:].mean() > 0.02
