"""Scores of maps against known regions, against obvious references; and the whole protocol on small pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation import (
    PairEntry,
    energy_ratio,
    most_salient_region,
    pixel_auc,
    plan_plantings,
    points_inside,
)
from xfr_plugin.evaluation.pairs import load_pair
from xfr_plugin.evaluation.protocol import Setting
from xfr_plugin.evaluation.protocols.planted_evidence.protocol import PlantedEvidence, PlantedPair
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.lfw import image_path, read_people
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.swaps.planting import Planting, named_regions


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
def planted(folder: tuple[Path, dict[str, list[str]]]) -> list[PlantedPair]:
    plantings = plan_plantings(folder[1], 7, seed=0, regions=("eyes", "nose", "mouth"))
    return pairs_of(FaceFolder(folder[0], (24, 20)), plantings)


def pairs_of(folder: FaceFolder, plantings: list[Planting]) -> list[PlantedPair]:
    pairs = [load_pair(folder, PairEntry.of(planting)) for planting in plantings]
    return [pair for pair in pairs if isinstance(pair, PlantedPair)]


def test_slices_tell_what_a_planting_did() -> None:
    protocol = PlantedEvidence()
    facts = {"region": "nose", "control": False, "strength": 1.0, "blending": "feather"}
    for game, change in (("similar", 0.2), ("dissimilar", -0.2)):
        kept, left = (protocol.slices({**facts, "game": game, "moved": moved}) for moved in (change, -change))
        assert f"{game}, moved > 0.1" in kept
        assert f"{game}, moved > 0.1" not in left
        assert game in left


def judged(
    planted: list[PlantedPair], recognizer: Recognizer, maps: np.ndarray
) -> dict[str, dict[str, float]]:
    """Means of the protocol's metrics over the pairs of each game, for maps N×H×W of the probes."""
    protocol, setting, found = PlantedEvidence(blur=0), Setting(recognizer, 0.2), {}
    for pair, values in zip(planted, maps, strict=True):
        for measured in protocol.judge(pair, (values, values), setting):
            found.setdefault(pair.planting.game, {}).setdefault(measured.metric, []).append(measured.value)
    return {game: {name: float(np.mean(values)) for name, values in of.items()} for game, of in found.items()}


def test_a_map_that_knows_the_truth_wins_and_chance_does_not(
    planted: list[PlantedPair], recognizer: Recognizer
) -> None:
    truths = [pair.probe_regions.mask(*named_regions(pair.planting.region)) for pair in planted]
    signs = [1 if pair.planting.game == "similar" else -1 for pair in planted]
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
    folder, recognizer = FaceFolder(faces_root, (112, 112)), load_recognizer("xfr_compact128")
    plantings = plan_plantings(people, 24, seed=0, regions=["nose"], regions_of=folder.regions)
    pairs = pairs_of(folder, plantings)
    before, after, partners = (
        recognizer.embed(torch.stack(faces).float() / 255)
        for faces in zip(*((pair.before, pair.probe, pair.reference) for pair in pairs), strict=True)
    )
    change = ((after - before) * partners).sum(dim=1)
    assert change[:24].mean() < -0.08
    assert change[24:].mean() > 0.02
