"""Regions divide the aligned face without gaps, and their sums add up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.faces import (
    ARCFACE_TEMPLATE,
    REGION_NAMES,
    RegionMap,
    mesh_regions,
    template,
    template_regions,
)
from xfr_plugin.faces.regions import MESH_FEATURES


@pytest.mark.parametrize("size", [(112, 112), (160, 120), (56, 56), (24, 20)])
def test_template_regions_are_a_partition_with_no_empty_region(size: tuple[int, int]) -> None:
    regions = template_regions(size)
    assert regions.size == size
    areas = regions.areas()
    assert sum(areas.values()) == size[0] * size[1]
    assert all(area > 0 for name, area in areas.items() if size[0] >= 56 and "ear" not in name)
    assert not regions.face[0].any()


@pytest.mark.parametrize("size", [(112, 112), (160, 120)])
def test_landmarks_lie_in_their_regions(size: tuple[int, int]) -> None:
    regions = template_regions(size)
    expected = ("right_eye", "left_eye", "nose", "mouth", "mouth")
    for (x, y), name in zip(template(size), expected, strict=True):
        assert regions.names[regions.labels[round(y), round(x)]] == name


def test_right_and_left_are_mirror_images() -> None:
    areas = template_regions((112, 112)).areas()
    for part in ("eye", "brow", "cheek"):
        assert abs(areas[f"right_{part}"] - areas[f"left_{part}"]) <= 0.05 * areas[f"left_{part}"]


def test_sums_over_regions_add_up_to_the_total() -> None:
    values = np.random.default_rng(0).normal(size=(112, 112))
    totals = template_regions().totals(values)
    assert set(totals) == set(REGION_NAMES)
    assert sum(totals.values()) == pytest.approx(values.sum())
    mask = template_regions().mask("nose")
    assert totals["nose"] == pytest.approx(values[mask].sum())


def test_masks_of_several_regions_and_unknown_ones() -> None:
    regions = template_regions()
    both = regions.mask("right_eye", "left_eye")
    assert both.sum() == regions.areas()["right_eye"] + regions.areas()["left_eye"]
    with pytest.raises(UnknownNameError, match="did you mean 'nose'"):
        regions.mask("noze")


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        template_regions().totals(np.zeros((5, 5)))
    with pytest.raises(InputError):
        RegionMap(np.full((3, 3), len(REGION_NAMES), np.uint8))


def test_hair_and_background_are_not_the_face() -> None:
    regions = template_regions()
    np.testing.assert_array_equal(regions.outside, regions.mask("hair", "background"))
    np.testing.assert_array_equal(regions.face, ~regions.outside)
    own = RegionMap(
        np.arange(6, dtype=np.uint8)[None], ("around", "upper", "hair", "lower", "outside", "nose")
    )
    np.testing.assert_array_equal(own.face[0], [False, True, False, True, False, True])


def test_what_belongs_to_the_eye() -> None:
    """The socket from the brow down to the bag: an eye region is larger than its brow and touches it."""
    regions = template_regions()
    areas = regions.areas()
    for side in ("right", "left"):
        eye, brow = regions.mask(f"{side}_eye"), regions.mask(f"{side}_brow")
        assert areas[f"{side}_eye"] > 1.5 * areas[f"{side}_brow"]
        assert (eye[1:] & brow[:-1]).sum() > 15


def test_mesh_features_are_checked() -> None:
    with pytest.raises(InputError, match="missing: bridge, face_oval"):
        mesh_regions(ARCFACE_TEMPLATE, {})
    names = ("face_oval", "nose", "right_brow", "left_brow", "mouth", *MESH_FEATURES)
    features = {name: [0, 1, 9] for name in names}
    with pytest.raises(InputError, match="beyond the 5 vertices"):
        mesh_regions(ARCFACE_TEMPLATE, features)


@pytest.mark.real_data
def test_template_covers_the_features_of_real_faces(faces_root: Path) -> None:
    """Our template against the average face mesh of the aligned faces: features inside, oval alike."""
    features = json.loads((faces_root / "regions.json").read_text())
    average = mesh_regions(features["median_mesh_112"], MESH_FEATURES | features["mesh_indices"])
    ours = template_regions()
    for name in ("nose", "right_eye", "left_eye", "right_brow", "left_brow", "mouth"):
        theirs = average.mask(name)
        assert (ours.mask(name) & theirs).sum() / theirs.sum() > 0.88, name
    assert (ours.face & average.face).sum() / (ours.face | average.face).sum() > 0.9


@pytest.mark.real_data
def test_mesh_regions_of_a_real_face(faces_root: Path) -> None:
    """Against the label map of the makers of the data: what they draw lies in what we draw."""
    features = json.loads((faces_root / "regions.json").read_text())
    mesh = np.array(features["median_mesh_112"])
    regions = mesh_regions(mesh, MESH_FEATURES | features["mesh_indices"])
    measured = np.asarray(Image.open(faces_root / "template_regions_112.png"))
    for index, name in enumerate(features["names"][1:], start=1):
        theirs = measured == index
        if name not in ("right_cheek", "left_cheek", "forehead"):
            assert (regions.mask(name) & theirs).sum() / theirs.sum() > 0.9, name
    assert ((measured > 0) == regions.face).mean() > 0.97
