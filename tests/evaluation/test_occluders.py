"""What is drawn over faces: every kind on any face, by the seed alone, where its mask says."""

from __future__ import annotations

import numpy as np
import pytest

from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.evaluation.occluders.frame import Frame, landmarks_of
from xfr_plugin.evaluation.occluders.kinds import OCCLUDERS, occlude
from xfr_plugin.faces.alignment import template
from xfr_plugin.faces.regions import RegionMap, template_regions

FACE = np.random.default_rng(0).random((112, 112, 3))
REGIONS = template_regions()


def test_there_are_at_least_twelve() -> None:
    assert len(OCCLUDERS) >= 12


@pytest.mark.parametrize("kind", OCCLUDERS)
def test_it_hides_a_part_of_the_face_by_its_seed(kind: str) -> None:
    seen = []
    for seed in (1, 1, 2):
        found = occlude(FACE, template(), kind, np.random.default_rng(seed))
        changed = np.abs(found.image - FACE).max(axis=2) > 1e-3
        share = found.covered[REGIONS.face].mean()
        assert 0.01 < share < 0.8
        assert changed[found.covered].mean() > 0.95
        assert 0 <= found.image.min() <= found.image.max() <= 1
        seen.append(found)
    assert np.array_equal(seen[0].image, seen[1].image)
    assert not np.array_equal(seen[0].covered, seen[2].covered)


@pytest.mark.parametrize(
    ("kind", "region"), [("sunglasses", "right_eye"), ("surgical mask", "mouth"), ("scarf", "chin")]
)
def test_it_lies_where_its_name_says(kind: str, region: str) -> None:
    for seed in range(5):
        covered = occlude(FACE, template(), kind, np.random.default_rng(seed)).covered
        assert covered[REGIONS.mask(region)].mean() > 0.6


def test_it_turns_and_moves_with_the_face() -> None:
    points = template()
    turned = np.stack([111 - points[:, 1], points[:, 0]], axis=1)  # a quarter turn
    upright, leaning = (
        occlude(FACE, landmarks, "bar over the eyes", np.random.default_rng(3)).covered
        for landmarks in (points, turned)
    )
    assert (np.rot90(upright, -1) == leaning).mean() > 0.99


def test_landmarks_come_from_the_regions_of_the_face() -> None:
    assert np.abs(landmarks_of(REGIONS) - template())[[0, 1, 3, 4]].max() < 6
    labels = REGIONS.labels.copy()
    labels[REGIONS.mask("right_eye", "mouth")] = 0
    assert np.array_equal(landmarks_of(RegionMap(labels))[[0, 3, 4]], template()[[0, 3, 4]])


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="sunglasses"):
        occlude(FACE, template(), "sunglases", np.random.default_rng(0))
    with pytest.raises(InputError, match="line"):
        Frame.of(np.arange(10).reshape(5, 2), (112, 112))
