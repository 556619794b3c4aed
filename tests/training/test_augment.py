"""Augmentation: shapes, ranges, reproducibility, and what each operation does."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from xfr_plugin.training import augment as aug


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(count: int = 6, size: tuple[int, int] = (48, 40)) -> Tensor:
    coarse = torch.rand(count, 3, 6, 5, generator=generator(3))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False).clamp(0, 1)


def test_augment_keeps_shape_range_and_its_argument_and_follows_the_generator() -> None:
    images = smooth_images()
    before = images.clone()
    first = aug.augment(images, aug.AugmentConfig(), generator(1))
    assert first.shape == images.shape
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    assert torch.equal(images, before)
    assert torch.equal(first, aug.augment(images, aug.AugmentConfig(), generator(1)))
    assert not torch.equal(first, aug.augment(images, aug.AugmentConfig(), generator(2)))


def test_nothing_changes_at_probability_zero() -> None:
    off = aug.AugmentConfig(mirror=0, move=0, colour=0, grey=0, blur=0, compress=0, occlude=0)
    images = smooth_images()
    torch.testing.assert_close(aug.augment(images, off, generator()), images, atol=1e-6, rtol=0)


def test_mirror_swaps_left_and_right() -> None:
    images = smooth_images()
    assert torch.equal(aug.mirror(images.clone(), 1.0, generator()), images.flip(3))


def test_move_by_nothing_is_the_identity_and_rotation_does_not_distort() -> None:
    images = smooth_images()
    still = aug.move(images.clone(), 1.0, 0.0, 0.0, 0.0, generator())
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)
    # a bright square that is rotated keeps its area, also on images that are not square
    square = torch.zeros(1, 3, 80, 40)
    square[:, :, 32:48, 12:28] = 1
    turned = aug.move(square.clone(), 1.0, 45.0, 0.0, 0.0, generator(5))
    assert float(turned.sum()) == pytest.approx(float(square.sum()), rel=0.02)
    assert not torch.allclose(turned, square)


def test_grey_images_have_equal_channels() -> None:
    grey = aug.colour(smooth_images(), 1.0, 0.0, 1.0, generator())
    torch.testing.assert_close(grey[:, 0], grey[:, 1], atol=1e-6, rtol=0)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-6, rtol=0)


def test_occlusion_fills_one_rectangle_of_one_colour() -> None:
    images = smooth_images(count=20)
    covered = aug.occlude(images.clone(), 1.0, 0.5, generator())
    changed = (covered != images).any(dim=1)
    assert changed.any()
    for image, mask in zip(covered, changed, strict=True):
        if mask.any():
            rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
            inside = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert torch.allclose(inside, inside[:, :1, :1].expand_as(inside))
            assert len(rows) <= 0.5 * 48 + 1


def test_blur_lowers_detail() -> None:
    images = torch.rand(4, 3, 48, 40, generator=generator())
    softened = aug.blur(images.clone(), 1.0, generator())
    assert float(softened.diff(dim=3).abs().mean()) < 0.5 * float(images.diff(dim=3).abs().mean())


def test_compression_does_what_jpeg_does() -> None:
    """Errors of the same size as Pillow's JPEG of a grey image, and block-wise constant at the coarsest."""
    images = smooth_images(1, (48, 44))[:, :1].expand(-1, 3, -1, -1).clone()
    noisy = (images + 0.1 * torch.randn(1, 1, 48, 44, generator=generator())).clamp(0, 1)
    ours = aug.compress(noisy.clone(), 1.0, generator())
    assert ours.shape == noisy.shape
    file = io.BytesIO()
    pixels = (noisy[0, 0].numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=20)
    theirs = torch.from_numpy(np.array(Image.open(file))) / 255
    error_ours, error_theirs = (
        float((image - noisy[0, 0]).square().mean().sqrt()) for image in (ours[0, 0], theirs)
    )
    assert 0.3 * error_theirs < error_ours < 3 * error_theirs
