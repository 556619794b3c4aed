"""What is computed between passes of another runtime is what torch computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xfr_plugin.base.one_thread import blended, complement, multiplied, patched, standardised

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def images(kind: torch.dtype, count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 6, generator=torch.Generator().manual_seed(1)).to(kind)


@pytest.mark.parametrize("kind", TYPES)
def test_arithmetic_is_that_of_torch(kind: torch.dtype) -> None:
    faces, share = images(kind), images(kind)[:, None, :1]
    mean, std = (torch.tensor(value, dtype=kind).view(1, 3, 1, 1) for value in ([0.5, 0.4, 0.3], [0.2] * 3))
    assert torch.equal(standardised(faces, mean, std), (faces - mean) / std)
    assert torch.equal(complement(share), 1 - share)
    assert torch.equal(multiplied(share, faces[:, None]), share * faces[:, None])
    mixed = blended(torch.zeros(1, 1, dtype=kind), faces[:, None], share)
    torch.testing.assert_close(mixed, torch.lerp(torch.zeros(1, 1, dtype=kind), faces[:, None], share))


@pytest.mark.parametrize("kind", TYPES)
def test_patches_are_put_into_copies(kind: torch.dtype) -> None:
    face = images(kind)[0]
    kept = face.clone()
    patch = torch.ones(3, 2, 3, dtype=kind)
    copies = patched(face, [(slice(0, 2), slice(1, 4), patch), (slice(4, 6), slice(0, 3), 2 * patch)])
    expected = face.repeat(2, 1, 1, 1)
    expected[0, :, 0:2, 1:4], expected[1, :, 4:6, 0:3] = 1, 2
    assert torch.equal(copies, expected)
    assert torch.equal(face, kept)


def test_a_gradient_that_is_wanted_stays() -> None:
    faces = images(torch.float32).requires_grad_()
    one = torch.ones(1)
    both = multiplied(faces, one), multiplied(one, faces)
    for result in (standardised(faces, one, one), complement(faces), blended(faces, one, one / 2), *both):
        assert result.requires_grad
    with torch.no_grad():
        assert torch.equal(complement(faces), 1 - faces)
