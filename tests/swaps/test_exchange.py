"""Exchanged regions, against loops over pixels; several at once are one matrix product."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from helpers.exchange_loops import DEVICES, SIZE, change, masks
from torch import Tensor

from xfr_plugin.faces import template_regions
from xfr_plugin.swaps.exchange import exchange_regions, exchange_together, region_changes, template_masks
from xfr_plugin.swaps.masks import FeatheredMasks
from xfr_plugin.swaps.regions import COARSE_REGIONS

TYPES = {torch.float64: 1e-6, torch.float32: 2e-6, torch.float16: 2e-3}


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Two faces and two donors."""
    drawn = torch.rand(4, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    faces, donors = (0.3 + 0.4 * drawn).split(2)
    return faces, donors


def named_masks(*names: str) -> Tensor:
    return torch.from_numpy(np.stack([masks()[name] for name in names]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TYPES)
def test_changes_are_those_of_the_loops(pair: tuple[Tensor, Tensor], dtype: torch.dtype, device: str) -> None:
    faces, donors = (x.to(device, dtype) for x in pair)
    found = region_changes(faces, donors, FeatheredMasks.of(named_masks(*masks()).to(device)))
    assert found.dtype == dtype
    assert found.device == faces.device
    for row, face, donor in zip(found.double().cpu(), *(x.numpy() for x in pair), strict=True):
        for changes, mask in zip(row, masks().values(), strict=True):
            np.testing.assert_allclose(changes, change(face, donor, mask), atol=TYPES[dtype])


def test_each_face_can_have_masks_of_its_own(pair: tuple[Tensor, Tensor]) -> None:
    own = torch.stack([named_masks("inside", "corner"), named_masks("pieces", "inside")])
    found = region_changes(*pair, FeatheredMasks.of(own))
    for index in range(2):
        face, donor = (x[index : index + 1] for x in pair)
        alone = region_changes(face, donor, FeatheredMasks.of(own[index]))[0]
        torch.testing.assert_close(found[index], alone)


def test_changes_are_linear_in_face_and_donor(pair: tuple[Tensor, Tensor]) -> None:
    faces, donors = pair
    soft = FeatheredMasks.of(named_masks("inside", "corner"))
    mixed = region_changes(0.3 * faces + 0.7 * donors, donors, soft)
    torch.testing.assert_close(mixed, 0.3 * region_changes(faces, donors, soft))


def test_a_product_is_one_exchange_after_another_where_regions_lie_apart(pair: tuple[Tensor, Tensor]) -> None:
    faces, donors = pair
    soft = FeatheredMasks.of(named_masks("inside", "corner", "pieces"))
    assert not (soft.weights > 0).sum(dim=0).gt(1).any()
    versions = torch.tensor(list(product((False, True), repeat=3)))
    found = exchange_together(faces, region_changes(faces, donors, soft), versions)
    for index, version in enumerate(versions):
        expected = faces
        for region in torch.nonzero(version)[:, 0]:
            expected = exchange_regions(expected, donors, soft)[:, region]
        torch.testing.assert_close(found[:, index], expected)


def test_where_weights_overlap_changes_are_added(pair: tuple[Tensor, Tensor]) -> None:
    faces, donors = pair
    overlapping = torch.zeros(2, *SIZE, dtype=torch.bool)
    overlapping[0, 10:30, 10:30] = overlapping[1, 20:40, 10:30] = True
    soft = FeatheredMasks.of(overlapping)
    found = exchange_together(faces, region_changes(faces, donors, soft), torch.tensor([[True, True]]))
    added = sum(change(faces[0].numpy(), donors[0].numpy(), mask) for mask in overlapping.numpy())
    np.testing.assert_allclose(found[0, 0], np.clip(faces[0].numpy() + added, 0, 1), atol=1e-6)
    # with shared weights it is a mixture of both shifted donors, and nothing of the face is left
    shared = exchange_together(
        faces, region_changes(faces, donors, soft.shared()), torch.tensor([[True, True]])
    )
    shifts = torch.einsum("nchw,rhw->nrc", faces - donors, soft.seams.double())
    mixture = donors[:, :, 25, 20] + shifts.mean(dim=1)
    torch.testing.assert_close(shared[:, 0, :, 25, 20], mixture)


def test_nothing_exchanged_is_the_face_itself(pair: tuple[Tensor, Tensor]) -> None:
    faces, donors = pair
    changes = region_changes(faces, donors, FeatheredMasks.of(named_masks("inside", "all")))
    found = exchange_together(faces, changes, torch.zeros(1, 2, dtype=torch.bool))
    assert torch.equal(found[:, 0], faces)


def test_masks_of_the_template_cover_the_crop_and_seams_surround_the_regions() -> None:
    soft = template_masks((112, 112))
    assert (soft.weights.sum(dim=0) > 0.9).all()
    torch.testing.assert_close(soft.seams.sum(dim=(1, 2)), torch.ones(len(COARSE_REGIONS)))
    nose = soft.weights[list(COARSE_REGIONS).index("nose")].numpy()
    assert nose[template_regions().mask("nose")].min() > 0.8
    assert nose[template_regions().mask("chin", "right_brow", "left_brow")].max() < 0.2


def test_exchanging_moves_one_region_and_matches_its_colour() -> None:
    soft, mouth = template_masks((112, 112)), list(COARSE_REGIONS).index("mouth")
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) / 2 + 0.2
    unchanged = faces[:, None].expand(-1, 8, -1, -1, -1)
    np.testing.assert_allclose(exchange_regions(faces, faces, soft), unchanged, atol=1e-6)
    np.testing.assert_allclose(exchange_regions(faces, faces + 0.1, soft), unchanged, atol=1e-5)
    change_of = (exchange_regions(faces, faces.flip(0), soft) - faces[:, None]).abs().amax(dim=(0, 2))
    assert change_of[mouth][torch.from_numpy(template_regions().mask("mouth"))].mean() > 0.05
    assert change_of[mouth][:60].max() < 1e-6
