"""Occluders on photographs: the chain runs again, the truth goes with it, and a face that is lost counts as that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluation_faces import PEOPLE, judge, write_faces
from helpers.protocol_toys import SIZE, a_pair, random_pair_maps, value_of, window_recognizer
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from xfr_plugin.errors import InputError, NoFaceError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.judging import evaluate
from xfr_plugin.evaluation.occluders import photographed
from xfr_plugin.evaluation.occluders.photographed import FaceAgain, PhotographedPair
from xfr_plugin.evaluation.protocol import Measurement, Setting
from xfr_plugin.evaluation.protocols.photographs import Photographs
from xfr_plugin.faces import AlignedFace
from xfr_plugin.faces.alignment import align, template
from xfr_plugin.faces.detection import Box, DetectedFace

CHANCE = CHANCE_BASELINES["chance_centre"]
BEFORE = 2 * template(SIZE) + 20
TURN = np.array([[0.95, 0.2], [-0.2, 0.95]])
AFTER = (BEFORE - 40) @ TURN + 42
KINDS = ("bar over the eyes", "scarf", "surgical mask", "eye patch")


def _photo() -> NDArray[np.uint8]:
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((90, 90, 3)), (5, 5, 0))
    return (128 + 1200 * noise).clip(0, 255).astype(np.uint8)


def _found_at(landmarks: Sequence[NDArray[np.float64] | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let faces be found at these landmarks, one after the other; none for None."""
    left = iter(landmarks)

    def prepare(photo: NDArray[np.uint8], size: tuple[int, int], **_: object) -> AlignedFace:
        points = next(left)
        if points is None:
            raise NoFaceError("none")
        return AlignedFace(align(photo, points, size), DetectedFace(Box(0, 0, 9, 9), points))

    monkeypatch.setattr(photographed, "prepare_face", prepare)


def _pair() -> PhotographedPair:
    photo = _photo()
    probe = torch.from_numpy(align(photo, BEFORE, SIZE)).permute(2, 0, 1).contiguous()
    values = vars(a_pair(seed=3)) | {"probe": probe, "reference": probe}
    return PhotographedPair(**values, photo=photo, landmarks=BEFORE)


def test_what_lay_on_the_face_before_is_carried_to_where_the_face_lies_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = _pair()
    _found_at([AFTER], monkeypatch)
    again = FaceAgain.found(pair, pair.photo)
    assert again is not None
    area = np.linalg.det(TURN)  # of a pixel of the new crop, in pixels of the old
    before = pair.probe[0].numpy().astype(np.float32)
    inner = (slice(6, 18), slice(6, 14))
    carried, now = again.map(before) / area, again.pixels[0].numpy()
    assert np.abs(carried - now)[inner].max() < 12 < np.abs(before - now)[inner].max()
    drawn = np.zeros((90, 90), bool)
    drawn[:, : int(AFTER[:, 0].mean())] = True
    mask = again.mask(drawn)
    assert mask[:, :4].all()
    assert not mask[:, -4:].any()
    nose = again.regions(pair.probe_regions).mask("nose")
    assert np.abs(np.argwhere(nose).mean(0)[::-1] - template(SIZE)[2]).max() < 3


def test_a_face_that_is_found_elsewhere_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    _found_at([BEFORE + 60, None], monkeypatch)
    assert [FaceAgain.found(_pair(), _photo()) for _ in range(2)] == [None, None]


def _judged(
    landmarks: Sequence[NDArray[np.float64] | None], monkeypatch: pytest.MonkeyPatch
) -> list[Measurement]:
    _found_at(landmarks, monkeypatch)
    setting = Setting(window_recognizer(), 0.5)
    return list(Photographs(kinds=KINDS).judge(_pair(), random_pair_maps(), CHANCE, setting))


def test_a_lost_face_counts_as_that_and_is_judged_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _judged([BEFORE, None, AFTER, BEFORE], monkeypatch)
    assert value_of(found, "lost", "") == 0.25
    (lost,) = [m.variant for m in found if m.metric == "lost" and m.variant and m.value]
    assert not [m for m in found if m.variant == lost and m.metric != "lost"]
    assert 0 < value_of(found, "auc", "") < 1
    assert found == _judged([BEFORE, None, AFTER, BEFORE], monkeypatch)  # by the seed alone


def test_where_no_face_is_found_nothing_is_said_of_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _judged([None] * 4, monkeypatch)
    assert {m.metric for m in found} == {"explained", "lost"}
    assert (value_of(found, "explained"), value_of(found, "lost", "")) == (0, 1)


def test_pairs_without_their_photograph_are_refused() -> None:
    setting = Setting(window_recognizer(), 0.5)
    with pytest.raises(InputError, match="photographs"):
        list(Photographs().judge(a_pair(), random_pair_maps(), CHANCE, setting))


def test_a_run_draws_a_photograph_of_each_person_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_faces(tmp_path / "faces")
    for person in PEOPLE[:3]:
        (tmp_path / "photos" / person).mkdir(parents=True)
        Image.fromarray(_photo()).save(tmp_path / "photos" / person / "0.png")
    _found_at([BEFORE, *[AFTER] * 4] * 2, monkeypatch)
    options = {"photographs": tmp_path / "photos", "protocols": (Photographs(kinds=KINDS),), "limit": 2}
    for _ in range(2):  # the second finds no faces any more, and need not
        results = judge(tmp_path / "faces", tmp_path / "run", methods=("xssab",), **options)
    entries = results.manifest.photographs
    assert len({entry.probe for entry in entries}) == 2
    assert all(Path(entry.reference).stem != "0" for entry in entries)
    assert {f"photographs/{entry.probe}" for entry in entries} < set(results.manifest.faces)
    assert {row.number for row in results.summary() if row.metric == "lost" and not row.variant} == {2}
    assert not results.failures


def test_the_folder_must_be_named(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces")
    with pytest.raises(InputError, match="--photographs"):
        judge(tmp_path / "faces", tmp_path / "run", protocols=("photographs",))


@pytest.mark.real_data
def test_real_photographs_are_drawn_on(faces_root: Path, tmp_path: Path) -> None:
    results = evaluate(
        faces_root,
        faces_root / "pairsDevTest.txt",
        tmp_path,
        methods=("xssab",),
        protocols=("photographs",),
        split="dev",
        limit=1,
        chance=False,
    )
    values = {(r.variant, r.metric): r.value for r in results.records if r.protocol == "photographs"}
    assert values["", "lost"] < 0.5
    assert values["", "explained"] == 2
    assert 0 < values["", "auc"] < 1
    (pair,) = results.manifest.photographs
    assert results.facts[pair.name]["score"] > 0.3
