"""Deletion and insertion against loops, and against maps of a network that looks at one place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluation_faces import PEOPLE, small_recognizer, write_faces
from helpers.protocol_toys import a_pair, random_pair_maps, value_of, values_of, window_map, window_recognizer
from numpy.typing import NDArray

from xfr_plugin.attr._base.scoring import gaussian_blurred
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.natural.strangers import pose_matched
from xfr_plugin.evaluation.pairs import PairEntry, load_pair
from xfr_plugin.evaluation.protocol import EvaluationPair, Setting
from xfr_plugin.evaluation.protocols.deletion import Deletion
from xfr_plugin.evaluation.protocols.insertion import Insertion
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.recognition import Recognizer


def _masked_by_loops(
    face: NDArray[np.float64], ranks: NDArray[np.float64], percent: float, fill: str, removes: bool
) -> NDArray[np.float64]:
    """Pixel by pixel: how many others are more salient decides whether it is hidden."""
    _, height, width = face.shape
    top = round(percent / 100 * height * width)
    filled = {
        "black": np.zeros_like(face),
        "mean": np.broadcast_to(face.mean(axis=(1, 2), keepdims=True), face.shape),
        "blur": gaussian_blurred(torch.from_numpy(face)[None], 8.0)[0].numpy(),
    }[fill]
    masked = face.copy()
    for row in range(height):
        for column in range(width):
            more = int((ranks > ranks[row, column]).sum())
            if (more < top) == removes:
                masked[:, row, column] = filled[:, row, column]
    return masked


def _score(recognizer: Recognizer, probe: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    with torch.no_grad():
        first, second = recognizer(torch.from_numpy(np.stack([probe, reference])))
    return float(first @ second)


def _unit(pair: EvaluationPair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return pair.probe.double().numpy() / 255, pair.reference.double().numpy() / 255


@pytest.mark.parametrize("removes", [True, False], ids=["deletion", "insertion"])
@pytest.mark.parametrize("genuine", [True, False], ids=["genuine", "impostor"])
def test_curves_are_those_of_plain_loops(recognizer: Recognizer, genuine: bool, removes: bool) -> None:
    pair, maps, setting = a_pair(genuine), random_pair_maps(), Setting(recognizer, 0.2)
    kind = Deletion if removes else Insertion
    protocol = kind(
        faces=("probe", "reference", "both"),
        fills=("black", "mean", "blur"),
        saliencies=("evidence", "magnitude"),
        steps=2,
    )
    measured = list(protocol.judge(pair, maps, setting))
    for evidence in ("similar" if genuine else "dissimilar", None):
        word = evidence or f"magnitude of {'genuine' if genuine else 'impostor'}"
        ranks = [(m if genuine else -m) if evidence else abs(m) for m in maps]
        for fill in ("black", "mean", "blur"):
            for percent in (0, 50, 100):
                both = [
                    _masked_by_loops(face, rank, percent, fill, removes)
                    for face, rank in zip(_unit(pair), ranks, strict=True)
                ]
                for faces, probe, reference in (
                    ("probe", both[0], _unit(pair)[1]),
                    ("reference", _unit(pair)[0], both[1]),
                    ("both", both[0], both[1]),
                ):
                    expected = _score(recognizer, probe, reference)
                    variant = f"{word}, {faces}, {fill}"
                    assert values_of(measured, "score", variant)[percent] == pytest.approx(expected, abs=1e-9)
                    right = expected >= 0.2 if genuine else expected < 0.2
                    assert values_of(measured, "correct", variant)[percent] == right


def test_areas_are_trapezoids(recognizer: Recognizer) -> None:
    pair, setting = a_pair(genuine=False), Setting(recognizer, 0.2)
    measured = list(Deletion(fills=("black",)).judge(pair, random_pair_maps(), setting))
    scores, correct = values_of(measured, "score"), values_of(measured, "correct")
    assert list(scores) == [10.0 * step for step in range(11)]
    area = sum((scores[10 * i] + scores[10 * i + 10]) / 2 * 0.1 for i in range(10))
    share = sum((correct[10 * i] + correct[10 * i + 10]) / 2 * 0.1 for i in range(10))
    assert value_of(measured, "margin_auc") == pytest.approx(0.2 - area)
    assert value_of(measured, "accuracy_auc") == pytest.approx(share)


@pytest.mark.parametrize("kind", [Deletion, Insertion])
def test_the_place_that_is_looked_at_beats_random_order(kind: type[Deletion | Insertion]) -> None:
    setting, protocol = Setting(window_recognizer(), 0.9), kind(fills=("black",))
    for seed in range(4):
        pair = a_pair(seed=seed, name=f"pair {seed}")
        best = list(protocol.judge(pair, (window_map(), window_map()), setting))
        rest = list(protocol.judge(pair, random_pair_maps(seed), setting))
        for metric, higher in protocol.higher_is_better.items():
            assert (value_of(best, metric) > value_of(rest, metric)) == higher, metric


def test_ties_are_broken_by_the_pair_and_not_by_the_place(recognizer: Recognizer) -> None:
    setting, flat = Setting(recognizer, 0.2), (np.zeros((24, 20), np.float32),) * 2
    protocol = Deletion(fills=("black",))
    first, again = (list(protocol.judge(a_pair(), flat, setting)) for _ in range(2))
    assert first == again
    assert first != list(protocol.judge(a_pair(name="another"), flat, setting))
    assert first != list(protocol.judge(a_pair(), flat, Setting(recognizer, 0.2, seed=1)))


@pytest.mark.parametrize("kind", [Deletion, Insertion])
def test_strangers_take_the_place_of_the_face(kind: type[Deletion | Insertion], tmp_path: Path) -> None:
    write_faces(tmp_path)
    folder, recognizer = FaceFolder(tmp_path, (24, 20)), small_recognizer()
    setting = Setting(recognizer, 0.2, faces=folder, people=PEOPLE)
    pair = load_pair(folder, PairEntry(probe="p00/0.png", reference="p00/1.png", genuine=True))
    measured = list(kind(fills=("strangers",), steps=4).judge(pair, random_pair_maps(), setting))
    scores = values_of(measured, "score", "similar, probe, strangers")
    probe, reference = pair.images(recognizer)
    strangers = [folder.pixels(file) / 255 for file in pose_matched(folder, PEOPLE, pair.files, 2, 0)]
    moved = [s + (probe - s).mean(dim=(2, 3), keepdim=True) for s in strangers]
    ends = [
        _score_of(recognizer, probe, reference),
        np.mean([_score_of(recognizer, s, reference) for s in moved]),
    ]
    whole, none = (0, 100) if kind is Deletion else (100, 0)
    assert scores[whole] == pytest.approx(ends[0], abs=1e-5)
    assert scores[none] == pytest.approx(ends[1], abs=2e-2)  # colours are cut off at black and white
    with pytest.raises(InputError, match="folder"):
        list(kind().judge(a_pair(), random_pair_maps(), Setting(recognizer, 0.2)))


def _score_of(recognizer: Recognizer, probe: torch.Tensor, reference: torch.Tensor) -> float:
    with torch.no_grad():
        first, second = recognizer(torch.cat([probe.clamp(0, 1), reference]))
    return float(first @ second)


def test_default_cost_is_as_stated(recognizer: Recognizer) -> None:
    class Counting(Setting):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            counts.append(len(images))
            return super().embed(images)

    counts: list[int] = []
    two = ("black", "blur")
    for protocol in (Deletion(fills=two), Insertion(fills=two), Deletion(faces=("both",), fills=("black",))):
        list(protocol.judge(a_pair(), random_pair_maps(), Counting(recognizer, 0.2)))
    assert counts == [22, 22, 22]


def test_options_are_checked_and_stated() -> None:
    assert Deletion(fills=(0.5, "mean"), smoothing=0.02).settings() == {
        "faces": ["probe"],
        "fills": [0.5, "mean"],
        "saliencies": ["evidence"],
        "steps": 10,
        "smoothing": 0.02,
    }
    for options in (
        {"faces": ("left",)},
        {"faces": "probe"},
        {"fills": ()},
        {"fills": ("white",)},
        {"saliencies": ("similar",)},
        {"steps": 0},
        {"smoothing": -1.0},
    ):
        with pytest.raises(InputError):
            Insertion(**options)
