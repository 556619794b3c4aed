"""Soft masks and their seams, against loops over pixels; at the crop's edge there is no seam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.exchange_loops import DEVICES, SIZE, feathered, masks, seam, within
from torch import Tensor

from xfr_plugin.swaps.masks import FeatheredMasks, grown


def stacked(device: str = "cpu") -> Tensor:
    return torch.from_numpy(np.stack(list(masks().values()))).to(device)


@pytest.mark.parametrize("device", DEVICES)
def test_weights_are_a_gaussian_average(device: str) -> None:
    found = FeatheredMasks.of(stacked(device)).weights.cpu()
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, np.stack([feathered(mask) for mask in masks().values()]), atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_seams_are_where_face_and_donor_meet(device: str) -> None:
    found = FeatheredMasks.of(stacked(device)).seams.cpu().numpy()
    for mask, ring in zip(masks().values(), found, strict=True):
        expected = seam(mask).astype(np.float64)
        np.testing.assert_allclose(ring, expected / max(1, expected.sum()), atol=1e-8)


@pytest.mark.parametrize("device", DEVICES)
def test_what_the_crop_cuts_off_has_no_seam_there(device: str) -> None:
    named = dict(zip(masks(), FeatheredMasks.of(stacked(device)).seams.cpu(), strict=True))
    assert not named["all"].any()
    assert not named["nothing"].any()
    corner = named["corner"] > 0
    assert not corner[-1, 32:].any(), "the crop's last row is no seam of a region that it cuts off"
    assert not corner[46:, -1].any()
    assert corner[44, 30:].all()
    assert corner[42:, 28:31].any(dim=1).all()


def test_two_pixels_of_112_come_along() -> None:
    for mask, larger in zip(masks().values(), grown(stacked()), strict=True):
        assert np.array_equal(larger, within(mask, 1)), "of 56 pixels it is one"
    large = torch.zeros(112, 112, dtype=torch.bool)
    large[50, 50] = True
    assert int(grown(large).sum()) == 13


def test_masks_of_each_face_are_those_of_all() -> None:
    of_all = FeatheredMasks.of(stacked())
    of_each = FeatheredMasks.of(stacked().expand(3, -1, *SIZE))
    torch.testing.assert_close(of_each.weights[1], of_all.weights)
    assert torch.equal(of_each.seams[2], of_all.seams)


def test_shared_weights_sum_to_at_most_one_and_are_left_where_they_do() -> None:
    overlapping = torch.zeros(3, *SIZE, dtype=torch.bool)
    overlapping[0, 10:30, 10:30] = overlapping[1, 20:40, 10:30] = overlapping[2, 45:50, 5:9] = True
    each = FeatheredMasks.of(overlapping)
    together = each.shared()
    whole = each.weights.sum(dim=0)
    assert float(whole.max()) > 1.9
    assert float(together.weights.sum(dim=0).max()) <= 1 + 1e-6
    torch.testing.assert_close(together.weights[:, whole <= 1], each.weights[:, whole <= 1])
    torch.testing.assert_close(together.weights[0, 25, 20], torch.tensor(0.5))
    assert torch.equal(together.seams, each.seams)
