"""Features kept whole: nothing of the donor's other features comes along, and nothing of the face's is cut."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from xfr_plugin.faces.regions import RegionMap, template_regions
from xfr_plugin.swaps.planting import Planting, plant
from xfr_plugin.swaps.whole import FEATURES, whole_feature

OWN = template_regions()
SKIN, INK = 0.6, 0.1


def _wide(name: str, by: int) -> RegionMap:
    """The template, of which a region reaches further to both sides."""
    mask = OWN.mask(name)
    wider = mask.copy()
    for step in range(1, by + 1):
        wider |= np.roll(mask, step, axis=1) | np.roll(mask, -step, axis=1)
    return RegionMap(np.where(wider, OWN.names.index(name), OWN.labels).astype(np.uint8))


def _drawn(regions: RegionMap, *names: str) -> NDArray[np.float32]:
    """A face of skin on which some regions are dark."""
    face = np.where(regions.mask(*names)[..., None], INK, SKIN)
    return np.broadcast_to(face, (112, 112, 3)).astype(np.float32)


def _planted(
    region: str, donor: NDArray[np.float32], theirs: RegionMap, face: NDArray[np.float32], blending: str
):
    planting = Planting.model_validate(
        {
            "game": "dissimilar",
            "region": region,
            "probe": "",
            "reference": "",
            "donor": "",
            "blending": blending,
        }
    )
    return plant(face, donor, planting, OWN, theirs)


def test_a_cheek_brings_no_edge_of_a_wider_nose() -> None:
    theirs, skin = _wide("nose", 6), _drawn(OWN)
    donor = _drawn(theirs, "nose")
    cut, whole = (_planted("cheeks", donor, theirs, skin, kind) for kind in ("feather", "whole"))
    assert np.abs(cut - skin).max() > 0.3
    assert np.abs(whole - skin).max() < 0.1


def test_a_wider_feature_comes_whole_and_is_fitted() -> None:
    theirs, face = _wide("mouth", 5), _drawn(OWN, "mouth")
    donor = _drawn(theirs, "mouth")
    moved, mask = whole_feature(donor, OWN, theirs, "mouth")
    assert mask[OWN.mask("mouth")].mean() > 0.9
    dark = moved[..., 0] < (SKIN + INK) / 2
    assert mask[dark].mean() > 0.9  # nearly all of the donor's mouth is taken
    columns = [np.flatnonzero(x.any(axis=0)) for x in (dark, OWN.mask("mouth"))]
    assert abs(np.ptp(columns[0]) - np.ptp(columns[1])) <= 4  # as wide as the face's own
    assert np.abs(_planted("mouth", donor, theirs, face, "whole") - face)[OWN.mask("nose")].max() < 0.05


@pytest.mark.parametrize("region", ["eyes", "brows", "nose", "mouth", "forehead", "cheeks", "chin"])
def test_other_features_of_the_face_stay(region: str) -> None:
    face, donor = _drawn(OWN, *FEATURES), np.full((112, 112, 3), 0.9, np.float32)
    planted = _planted(region, donor, OWN, face, "whole")
    others = [name for name in FEATURES if region.rstrip("s") not in name]
    inner = OWN.mask(*others) & ~_near(~OWN.mask(*others))
    assert np.abs(planted - face)[inner].max() < 0.2
    assert np.array_equal(_planted(region, face, OWN, face, "whole"), face)


def _near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(mask, iterations=3))
