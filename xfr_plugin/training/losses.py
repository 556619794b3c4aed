"""Losses of a decoder: pixels, gradients of the image, and identity through the frozen recognizer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["gradient_loss", "identity_loss", "pixel_loss", "shifted_views"]


def pixel_loss(images: Tensor, faces: Tensor) -> Tensor:
    """Mean absolute difference of two batches N×3×H×W in [0, 1]."""
    return functional.l1_loss(images, faces)


def gradient_loss(images: Tensor, faces: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical finite differences: keeps edges sharp."""
    difference = images - faces
    rows, columns = difference.diff(dim=2), difference.diff(dim=3)
    return (rows.abs().mean() + columns.abs().mean()) / 2


def identity_loss(recognizer: Recognizer, images: Tensor, embeddings: Tensor) -> Tensor:
    """Mean of 1 − cos(f(images), embeddings), between 0 and 2.

    Args:
        recognizer: f, frozen; gradients flow through it to the images.
        images: N×3 at the recognizer's input size, in [0, 1].
        embeddings: normalised, N×D.
    """
    found: Tensor = recognizer(images)
    return 1 - (found * embeddings).sum(dim=1).mean()


def shifted_views(images: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """Shift a batch by up to `largest` whole pixels, one shift for all; borders are repeated.

    The identity loss sees such views, so that a decoder cannot please the recognizer with a pattern that only
    works at one position.
    """
    if largest == 0:
        return images
    top, left = torch.randint(0, 2 * largest + 1, (2,), generator=generator).tolist()
    height, width = images.shape[2:]
    padded = functional.pad(images, (largest,) * 4, mode="replicate")
    return padded[:, :, top : top + height, left : left + width]
