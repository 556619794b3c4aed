"""The face finder and how photos are searched: what it proposes, in which copies, within which limits."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.base.deadlines import until
from xfr_plugin.base.weights import read_weights, write_weights
from xfr_plugin.errors import DeadlineError, LayoutError, WeightsError
from xfr_plugin.faces.finder import Finder, load_finder, save_finder
from xfr_plugin.faces.finder_network import FinderNetwork
from xfr_plugin.faces.preparation import prepare_face
from xfr_plugin.faces.search import FaceDetector, search_rounds

Photo = NDArray[np.uint8]

FACE = (slice(20, 220), slice(125, 325))


@pytest.fixture(scope="module")
def astronaut() -> Photo:
    return np.asarray(skimage.data.astronaut())


@pytest.mark.parametrize("degrees", [-25, 0, 25])
def test_a_candidate_says_where_a_face_is_and_how_it_is_turned(astronaut: Photo, degrees: float) -> None:
    photo = Image.fromarray(astronaut[FACE]).convert("L").rotate(-degrees, Image.Resampling.BICUBIC)
    best = load_finder()(photo, [0.5, 0.25])[0]
    angle, place = math.radians(degrees), np.array([99.0, 102.0]) - 100
    x, y = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]] @ place + 100
    assert math.hypot(best.box.x + best.box.width / 2 - x, best.box.y + best.box.height / 2 - y) < 20
    assert 80 < best.box.width < 150
    assert abs(best.angle - angle) < 0.25
    assert best.score > 0.5


def test_candidates_are_the_same_every_time_and_sorted(astronaut: Photo) -> None:
    photo = Image.fromarray(astronaut).convert("L")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = load_finder()(photo, [0.8, 0.4], least_score=0.05)
        assert alone == load_finder()(photo, [0.8, 0.4], least_score=0.05)
        torch.set_num_threads(2)
        both = load_finder()(photo, [0.8, 0.4], least_score=0.05)
    finally:
        torch.set_num_threads(before)
    assert [c.score for c in alone] == sorted((c.score for c in alone), reverse=True)
    assert [c.score for c in both] == pytest.approx([c.score for c in alone], abs=1e-4)


@pytest.mark.parametrize("larger_first", [False, True])
def test_of_two_people_the_larger_is_taken(astronaut: Photo, larger_first: bool) -> None:
    large, small = (
        Image.fromarray(astronaut[FACE]),
        Image.fromarray(astronaut[FACE][:, ::-1]).resize((70, 70)),
    )
    sheet = Image.new("RGB", (300, 220), (120, 110, 100))
    sheet.paste(large, (0 if larger_first else 90, 10))
    sheet.paste(small, (215 if larger_first else 5, 120))
    with pytest.warns(match="2 faces"):
        face = prepare_face(sheet)
    assert face.detected is not None
    assert face.detected.box.width > 80


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 8000), (60, 45), (512, 512), (4000, 400), (8000, 6000), (20000, 10)]
)
def test_copies_are_bounded_and_grow(size: tuple[int, int]) -> None:
    first, *others = search_rounds(size)
    largest = [max(scales) for scales in (first, *others)]
    assert largest == sorted(set(largest))
    pixels = [size[0] * size[1] * scale**2 for scale in largest]
    assert largest[-1] <= 1
    assert pixels[0] <= 320 * 320 + 1
    assert pixels[-1] <= 1200 * 1200 + 1
    assert max(size) * largest[-1] <= 4000
    assert min(size) * first[-1] <= 24 or len(first) == 1
    assert all(larger == pytest.approx(math.sqrt(2) * smaller) for larger, smaller in pairwise(first))


def test_a_search_ends_at_its_deadline() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3)).astype(np.uint8)
    with pytest.raises(DeadlineError), until(math.inf, time.thread_time() + 0.001):
        FaceDetector()(noise)
    with pytest.raises(DeadlineError), until(0.0):
        FaceDetector()(noise)


def test_a_photo_without_a_face_takes_no_longer_than_its_copies() -> None:
    photo = np.ascontiguousarray(skimage.data.rocket())
    FaceDetector()(photo)
    start = time.thread_time()
    assert FaceDetector()(photo) == []
    assert time.thread_time() - start < 0.5


def test_the_shipped_finder_is_small_and_says_where_it_comes_from() -> None:
    finder = load_finder()
    assert isinstance(finder, Finder)
    assert sum(p.numel() for p in finder.network.parameters()) < 100_000
    assert finder.card["training"]["photographs"] > 1500


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_finder(FinderNetwork(width=4), tmp_path / "small.safetensors", {})
    return tmp_path / "small.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": 2}, "no finder that this version reads"), ({"width": 10**6}, "impossible width")],
)
def test_tampered_metadata_is_refused(small_file: Path, change: dict[str, object], message: str) -> None:
    state, metadata = read_weights(small_file)
    metadata["finder"].update(change)
    write_weights(small_file, state, metadata)
    with pytest.raises(WeightsError, match=message):
        load_finder(small_file)


def test_damaged_and_foreign_files_are_refused(small_file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="check the path"):
        load_finder(tmp_path / "none.safetensors")
    write_weights(tmp_path / "other.safetensors", {"weight": torch.zeros(3)}, {"aligner": {}})
    with pytest.raises(WeightsError, match="no finder"):
        load_finder(tmp_path / "other.safetensors")
    state, metadata = read_weights(small_file)
    metadata["finder"]["width"] = 8
    write_weights(small_file, state, metadata)
    with pytest.raises(LayoutError, match="does not fit FinderNetwork"):
        load_finder(small_file)
    small_file.write_bytes(small_file.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_finder(small_file)
