"""Many faces at once are blended as one face is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.exchange_loops import DEVICES

from xfr_plugin.faces import template_regions
from xfr_plugin.swaps.blending import Blending, blend, blend_region
from xfr_plugin.swaps.donors import synthetic_faces
from xfr_plugin.swaps.masks import grown
from xfr_plugin.swaps.regions import COARSE_REGIONS

KINDS: tuple[Blending, ...] = ("feather", "poisson")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("region", COARSE_REGIONS)
def test_many_faces_are_planted_as_one_is(region: str, device: str) -> None:
    """But for steps of 1/255, to which many are rounded; regions at the crop's edge too."""
    faces = synthetic_faces(4, (112, 112), 3)
    mask = template_regions((112, 112)).mask(*COARSE_REGIONS[region])
    masks = grown(torch.from_numpy(mask).expand(2, 1, -1, -1))
    given = (x.to(device) for x in (faces[:2], faces[2:], masks, torch.tensor([False, True])))
    found = blend(*given).cpu()
    for kind, face, donor, blended in zip(KINDS, faces, faces[2:], found, strict=False):
        arrays = (x.permute(1, 2, 0).numpy() for x in (face, donor))
        expected = blend_region(*arrays, mask, kind)
        apart = np.abs(blended.permute(1, 2, 0).numpy() - expected)
        assert apart.max() < 0.5 / 255 + 1e-3
        assert np.abs(expected - face.permute(1, 2, 0).numpy())[mask].mean() > 0.01


def test_an_empty_region_changes_nothing() -> None:
    faces = synthetic_faces(2, (64, 48), 3)
    nothing = torch.zeros(1, 1, 64, 48, dtype=torch.bool)
    for seamless in (False, True):
        assert torch.equal(blend(faces[:1], faces[1:], nothing, torch.tensor([seamless])), faces[:1])
