"""1:N: the best of a gallery are those of a plain product, and what argues for each adds up to its lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting import counted
from helpers.evaluation_faces import small_recognizer
from numpy.typing import NDArray

import xfr_plugin
from xfr_plugin.errors import InputError
from xfr_plugin.explanation import gallery as module
from xfr_plugin.explanation.gallery import nearest, search
from xfr_plugin.recognition import Recognizer

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor


@pytest.fixture
def rows() -> NDArray[np.float64]:
    return np.random.default_rng(0).standard_normal((500, 6))


@pytest.mark.parametrize("chunk", [1, 7, 500])
@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4", "int8"])
def test_the_nearest_are_those_of_a_plain_product(
    rows: NDArray[np.float64], dtype: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any type and length of row, whatever the chunks; equal ones in their order."""
    monkeypatch.setattr(module, "_ROWS", chunk)
    stored = (40 * rows).astype(dtype)
    stored[400:410] = stored[100]
    unit = stored[100] / np.linalg.norm(stored[100].astype(float))
    wide = stored.astype(float)
    cosines = wide @ unit / np.linalg.norm(wide, axis=1)
    expected = np.argsort(-np.round(cosines, 9), kind="stable")[:30]
    scores, found = nearest(unit, stored, 30)
    assert found.tolist() == expected.tolist()
    assert found[:11].tolist() == [100, *range(400, 410)]
    np.testing.assert_allclose(scores, cosines[expected], atol=1e-9)
    assert scores.max() <= 1


def test_rows_without_a_direction_are_never_among_the_best(rows: NDArray[np.float64]) -> None:
    rows[[3, 5, 7, 9]] = np.array([0, np.nan, np.inf, 1e-40])[:, None]
    rows[11] *= 1e100
    scores, found = nearest(rows[0] / np.linalg.norm(rows[0]), rows, 10_000)
    assert len(found) == 496
    assert not {3, 5, 7, 9} & set(found.tolist())
    assert 11 in found
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("stored", [np.ones((4, 5)), np.ones(6), np.ones((4, 6), dtype=complex)])
def test_galleries_of_another_form_are_refused(stored: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="numbers N×6"):
        nearest(np.ones(6), stored, 3)


@pytest.fixture
def recognizer() -> Recognizer:
    return small_recognizer()


@pytest.mark.parametrize("method", ["leave_one_out", "shapley"])
def test_evidence_for_a_candidate_adds_up_to_its_lead_over_the_next(
    recognizer: Recognizer, rows: NDArray[np.float64], tmp_path: Path, method: str
) -> None:
    np.save(tmp_path / "gallery.npy", rows.astype(np.float32))
    photo = np.random.default_rng(1).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    settings: dict[str, Any] = {"recognizer": recognizer, "method": method, "alignment": "aligned"}
    face, found = search(photo, tmp_path / "gallery.npy", top=12, **settings)
    assert np.array_equal(face.image, photo)
    assert [one.against for one in found[:-1]] == [one.index for one in found[1:]]
    unit = recognizer.embed(torch.from_numpy(photo.transpose(2, 0, 1)[None] / 255))[0]
    for one in found:
        own = rows[one.index] / np.linalg.norm(rows[one.index])
        assert one.verification.score == pytest.approx(float(unit.double().numpy() @ own), abs=1e-6)
        assert one.lead is not None
        assert sum(region.evidence for region in one.regions) == pytest.approx(one.lead, abs=1e-5)
    alone = search(photo, rows[[found[0].index, found[1].index]], **settings)[1]
    assert alone[0].lead == pytest.approx(found[0].lead, abs=1e-6)
    assert [region.evidence for region in alone[0].regions] == pytest.approx(
        [region.evidence for region in found[0].regions], abs=1e-6
    )
    assert (alone[1].against, alone[1].lead, alone[1].regions) == (None, None, ())


def test_a_hundred_candidates_cost_the_passes_of_one(
    recognizer: Recognizer, rows: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = np.random.default_rng(1).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    search(photo, rows, top=1, recognizer=recognizer, alignment="aligned")
    counts = counted(monkeypatch)
    images = []
    for top in (1, 100):
        counts.clear()
        assert len(search(photo, rows, top=top, recognizer=recognizer, alignment="aligned")[1]) == top
        images.append(counts["images"])
    assert images[0] == images[1] > 10


def test_galleries_that_cannot_be_searched_are_errors(recognizer: Recognizer, tmp_path: Path) -> None:
    photo = np.zeros((24, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "cut.npy", np.ones((3, 6)))
    whole = (tmp_path / "cut.npy").read_bytes()
    damaged = {
        "text": b"no array",
        "empty": b"",
        "cut": whole[:-1],
        "head": whole[:20],
        "zip": b"PK\x03\x04 no zip",
    }
    for name, data in damaged.items():
        (tmp_path / f"{name}.npy").write_bytes(data)
    np.savez(tmp_path / "several.npz", a=np.ones((3, 6)))
    for gallery, words in (
        (tmp_path / "nothing.npy", "No such file"),
        *((tmp_path / f"{name}.npy", f"{name}.npy is no array that numpy.save wrote") for name in damaged),
        (tmp_path / "several.npz", "several.npz is no array that numpy.save wrote"),
        (np.ones((3, 7)), "N×6"),
    ):
        with pytest.raises(InputError, match=words):
            search(photo, gallery, recognizer=recognizer, alignment="aligned")
    assert search(photo, np.zeros((3, 6)), recognizer=recognizer, alignment="aligned")[1] == ()
    scorer = Recognizer.from_scores(lambda a, b: (a * b).sum(dim=(1, 2, 3)), threshold=0.2)
    with pytest.raises(InputError, match="no stored embeddings"):
        search(photo, np.ones((3, 6)), recognizer=scorer)
    with pytest.raises(InputError, match="top"):
        search(photo, np.ones((3, 6)), top=0, recognizer=recognizer)
    assert xfr_plugin.search is search
