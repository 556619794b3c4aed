"""Planted evidence: where it is, that the seam is all that a control has, and that a draw can be repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation import blend_region, plan_plantings, read_plantings, write_plantings
from xfr_plugin.faces import RegionMap, template_regions
from xfr_plugin.swaps.blending import Blending
from xfr_plugin.swaps.planting import named_regions

Face = NDArray[np.float32]
PEOPLE = {"nobody": []} | {f"p{i}": [f"p{i}/{k}.jpg" for k in range(1 + i % 4)] for i in range(12)}


@pytest.fixture
def faces() -> tuple[Face, Face]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:112, :112] / 112
    face = np.stack([rows, columns, 1 - rows], axis=-1) * 0.5 + 0.2
    donor = np.stack([columns, rows, 1 - columns], axis=-1) * 0.3 + 0.4 + 0.05 * rng.random((112, 112, 1))
    return face.astype(np.float32), donor.astype(np.float32)


@pytest.mark.parametrize("blending", ["feather", "poisson"])
def test_only_the_region_changes(faces: tuple[Face, Face], blending: str) -> None:
    mask = template_regions().mask("nose")
    blended = blend_region(*faces, mask, blending)
    change = np.abs(blended - faces[0]).max(axis=-1)
    assert blended.dtype == np.float32
    assert change[mask].mean() > 0.01
    far = np.ones_like(mask)
    far[30:100, 25:90] = False
    assert change[far].max() < 1e-3


def test_poisson_keeps_gradients_inside_and_colours_at_the_border(faces: tuple[Face, Face]) -> None:
    face, donor = faces
    mask = np.zeros((112, 112), bool)
    mask[40:70, 40:70] = True
    blended = blend_region(face, donor, mask, "poisson").astype(np.float64)

    def laplace(x: np.ndarray) -> np.ndarray:
        return 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]

    inside = np.s_[42:66, 42:66]
    np.testing.assert_allclose(laplace(blended)[inside], laplace(donor.astype(np.float64))[inside], atol=1e-5)
    np.testing.assert_array_equal(blended[:36], face[:36])


def test_a_donor_that_differs_by_a_constant_leaves_no_trace(faces: tuple[Face, Face]) -> None:
    face = faces[0]
    mask = template_regions().mask("mouth")
    for blending in ("feather", "poisson"):
        blended = blend_region(face, face + np.float32(0.1), mask, blending)
        assert np.abs(blended - face).max() < 0.02


def test_strength_is_the_share_of_the_donor(faces: tuple[Face, Face]) -> None:
    mask = template_regions().mask("chin")
    whole, half = (blend_region(*faces, mask, strength=s) for s in (1.0, 0.5))
    np.testing.assert_allclose(half - faces[0], (whole - faces[0]) / 2, atol=1e-6)


@pytest.mark.parametrize("blending", ["feather", "poisson"])
def test_a_mirrored_donor_need_not_be_copied_first(faces: tuple[Face, Face], blending: Blending) -> None:
    mask, mirrored = template_regions().mask("nose"), faces[1][:, ::-1]
    expected = blend_region(faces[0], mirrored.copy(), mask, blending)
    np.testing.assert_array_equal(blend_region(faces[0], mirrored, mask, blending), expected)


def test_bad_blends_say_what_is_wrong(faces: tuple[Face, Face]) -> None:
    mask = template_regions().mask("nose")
    with pytest.raises(InputError, match="empty"):
        blend_region(*faces, np.zeros_like(mask))
    with pytest.raises(InputError, match="one size"):
        blend_region(faces[0], faces[1][:50], mask)
    with pytest.raises(InputError, match="strength"):
        blend_region(*faces, mask, strength=2)
    with pytest.raises(InputError, match="blending"):
        blend_region(*faces, mask, "glue")


def test_draws_repeat_and_regions_take_turns() -> None:
    first = plan_plantings(PEOPLE, 14, seed=5)
    assert first == plan_plantings(PEOPLE, 14, seed=5)
    assert first != plan_plantings(PEOPLE, 14, seed=6)
    assert [p.region for p in first[:7]] == ["eyes", "brows", "nose", "mouth", "forehead", "cheeks", "chin"]
    assert [p.game for p in first] == ["dissimilar"] * 14 + ["similar"] * 14


@pytest.mark.parametrize("control", [False, True])
def test_who_is_who(control: bool) -> None:
    def person(file: str) -> str:
        return file.split("/")[0]

    for planting in plan_plantings(PEOPLE, 40, seed=0, control=control):
        probe, reference, donor = map(person, (planting.probe, planting.reference, planting.donor))
        assert (probe == reference) == (planting.game == "dissimilar")
        assert len({planting.probe, planting.reference, planting.donor}) == 3
        if control:
            assert donor == probe
        elif planting.game == "dissimilar":
            assert donor != probe
        else:
            assert donor == reference


def test_pairs_of_regions_are_planted_together() -> None:
    assert named_regions("eyes+nose") == ("right_eye", "left_eye", "nose")
    with pytest.raises(InputError, match="ear"):
        plan_plantings(PEOPLE, 2, seed=0, regions=["nose+ear"])
    with pytest.raises(InputError, match="two people"):
        plan_plantings({"a": ["1", "2"], "b": ["3"]}, 2, seed=0)


def test_manifests_come_back(tmp_path: Path) -> None:
    drawn = plan_plantings(PEOPLE, 5, seed=1, strength=0.5, blending="poisson")
    write_plantings(drawn, tmp_path / "m.json")
    assert read_plantings(tmp_path / "m.json") == drawn
    (tmp_path / "other.json").write_text('{"format": "x"}')
    (tmp_path / "list.json").write_text("[1]")
    for name in ("other.json", "list.json", "missing.json"):
        with pytest.raises(InputError, match="manifest"):
            read_plantings(tmp_path / name)


def test_faces_that_hide_the_region_are_not_drawn() -> None:
    without_chin = np.where(template_regions().mask("chin"), 0, template_regions().labels)
    hidden = RegionMap(without_chin.astype(np.uint8))
    people = {f"p{i}": [f"p{i}/{k}.jpg" for k in range(4)] for i in range(3)}

    def regions_of(file: str) -> RegionMap:
        return hidden if file.endswith("0.jpg") else template_regions()

    for planting in plan_plantings(people, 30, seed=0, regions=["chin+nose"], regions_of=regions_of):
        assert not planting.probe.endswith("0.jpg")
        assert not planting.reference.endswith("0.jpg")
