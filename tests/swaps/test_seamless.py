"""Seamless cloning, against the equations of Poisson image editing, solved as they stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.exchange_loops import DEVICES, SIZE, masks, seamless_change
from torch import Tensor

from xfr_plugin.swaps.seamless import harmonic, seamless_changes

SOLVABLE = ("inside", "corner", "pieces", "nothing")
TOLERANCES = {torch.float64: (1e-9, 1e-8), torch.float32: (1e-4, 1e-3)}


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    faces, donors = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(0)).split(2)
    return faces.double(), donors.double()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_changes_solve_the_equations(pair: tuple[Tensor, Tensor], dtype: torch.dtype, device: str) -> None:
    """At the crop's edge too, where a pixel has fewer neighbours and nothing holds the donor to the face."""
    tolerance, apart = TOLERANCES[dtype]
    regions = torch.from_numpy(np.stack([masks()[name] for name in SOLVABLE])).to(device)
    found = seamless_changes(*(x.to(device, dtype) for x in pair), regions, tolerance)
    assert found.dtype == dtype
    for row, face, donor in zip(found.double().cpu(), *(x.numpy() for x in pair), strict=True):
        for changes, name in zip(row, SOLVABLE, strict=True):
            np.testing.assert_allclose(changes, seamless_change(face, donor, masks()[name]), atol=apart)


def test_each_face_can_have_masks_of_its_own(pair: tuple[Tensor, Tensor]) -> None:
    own = torch.from_numpy(np.stack([masks()["corner"], masks()["inside"]]))[:, None]
    found = seamless_changes(*pair, own, 1e-9)
    for index in range(2):
        alone = seamless_changes(*(x[index : index + 1] for x in pair), own[index], 1e-9)
        torch.testing.assert_close(found[index], alone[0], atol=1e-8, rtol=0)


def test_the_whole_crop_takes_the_donor_as_it_is(pair: tuple[Tensor, Tensor]) -> None:
    faces, donors = pair
    found = seamless_changes(faces, donors, torch.from_numpy(masks()["all"])[None], 1e-9)
    torch.testing.assert_close(faces + found[:, 0], donors)


def test_a_plane_is_continued_as_a_plane() -> None:
    rows, columns = torch.meshgrid(*(torch.arange(side).double() for side in SIZE), indexing="ij")
    plane = (0.3 * rows - 0.2 * columns + 1)[None]
    inside = torch.from_numpy(masks()["inside"])[None].double()
    torch.testing.assert_close(harmonic(plane, inside, 1e-9), plane)
