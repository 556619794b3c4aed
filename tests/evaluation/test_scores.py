"""Scores of maps against known regions, against obvious references; and the whole protocol on small pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation import (
    bootstrap_mean,
    build_pairs,
    energy_ratio,
    most_salient_region,
    pixel_auc,
    plan_plantings,
    points_inside,
)
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedEvidence, PlantedPair
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


def test_slices_tell_what_a_planting_did() -> None:
    protocol = PlantedEvidence()
    facts = {"region": "nose", "control": False, "strength": 1.0, "blending": "feather"}
    for game, change in (("similar", 0.2), ("dissimilar", -0.2)):
        kept, left = (protocol.slices({**facts, "game": game, "moved": moved}) for moved in (change, -change))
        assert f"{game}, moved > 0.1" in kept
        assert f"{game}, moved > 0.1" not in left
        assert game in left


def judged(planted: PlantedPairs, recognizer: Recognizer, maps: np.ndarray) -> dict[str, dict[str, float]]:
    """Means of the protocol's metrics over the pairs of each game, for maps N×H×W of the probes."""
    protocol, setting, found = PlantedEvidence(blur=0), Setting(recognizer, 0.2), {}
    for index, planting in enumerate(planted.plantings):
        pair = PlantedPair(
            str(index),
            planted.probes[index],
            planted.references[index],
            planting.game == "dissimilar",
            planted.probe_regions[index],
            planted.reference_regions[index],
            planting,
            planted.probes[index],
        )
        for measured in protocol.judge(pair, (maps[index], maps[index]), setting):
            found.setdefault(planting.game, {}).setdefault(measured.metric, []).append(measured.value)
    return {game: {name: float(np.mean(values)) for name, values in of.items()} for game, of in found.items()}


def test_a_map_that_knows_the_truth_wins_and_chance_does_not(
    planted: PlantedPairs, recognizer: Recognizer
) -> None:
    signs = [1 if p.game == "similar" else -1 for p in planted.plantings]
    truths = [
        labels.mask(*named_regions(p.region))
        for p, labels in zip(planted.plantings, planted.probe_regions, strict=True)
    ]
    exact = np.stack([sign * truth for sign, truth in zip(signs, truths, strict=True)]).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(exact.shape).astype(np.float32)
    for game in ("dissimilar", "similar"):
        best, chance = (judged(planted, recognizer, maps)[game] for maps in (exact, noise))
        assert (best["auc"], best["top1"], best["pointing"]) == (1, 1, 1)
        assert chance["auc"] < 0.7
        assert chance["energy"] < best["energy"]


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
