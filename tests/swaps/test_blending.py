"""Many faces at once are blended as one face is; seamless cloning solves the equations of Poisson image editing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.exchange_loops import DEVICES, SIZE, masks, seamless_change

from xfr_plugin.faces import template_regions
from xfr_plugin.swaps.blending import blend, blend_region
from xfr_plugin.swaps.donors import synthetic_faces
from xfr_plugin.swaps.masks import grown
from xfr_plugin.swaps.regions import COARSE_REGIONS
from xfr_plugin.swaps.seamless import seamless_changes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("region", COARSE_REGIONS)
def test_many_faces_are_planted_as_one_is(region: str, device: str) -> None:
    """But for steps of 1/255, to which many are rounded; regions at the crop's edge too."""
    faces = synthetic_faces(4, (112, 112), 3)
    mask = template_regions((112, 112)).mask(*COARSE_REGIONS[region])
    given = (x.to(device) for x in (faces[:2], faces[2:], grown(torch.from_numpy(mask).expand(2, 1, -1, -1))))
    found = blend(*given).cpu()
    for face, donor, blended in zip(faces, faces[2:], found, strict=False):
        arrays = (x.permute(1, 2, 0).numpy() for x in (face, donor))
        expected = blend_region(*arrays, mask)
        apart = np.abs(blended.permute(1, 2, 0).numpy() - expected)
        assert apart.max() < 0.5 / 255 + 1e-3
        assert np.abs(expected - face.permute(1, 2, 0).numpy())[mask].mean() > 0.01


def test_an_empty_region_changes_nothing() -> None:
    faces = synthetic_faces(2, (64, 48), 3)
    nothing = torch.zeros(1, 1, 64, 48, dtype=torch.bool)
    assert torch.equal(blend(faces[:1], faces[1:], nothing), faces[:1])


@pytest.mark.parametrize("name", ["inside", "corner", "pieces", "nothing"])
def test_seamless_changes_solve_the_equations(name: str) -> None:
    """At the crop's edge too, where a pixel has fewer neighbours and nothing holds the donor to the face."""
    face, donor = np.random.default_rng(0).random((2, 3, *SIZE))
    found = seamless_changes(face, donor, masks()[name])
    np.testing.assert_allclose(found, seamless_change(face, donor, masks()[name]), atol=1e-9)


def test_the_whole_crop_takes_the_donor_as_it_is() -> None:
    face, donor = np.random.default_rng(0).random((2, 3, *SIZE))
    np.testing.assert_array_equal(seamless_changes(face, donor, masks()["all"]), donor - face)
