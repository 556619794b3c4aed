"""What a face is compared with, or filled with, where evidence is taken away."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from xfr_plugin.attr._base.smoothing import blurred
from xfr_plugin.base.options import checked_choice

__all__ = ["Baseline", "baseline_images", "checked_baseline"]

Baseline: TypeAlias = Literal["black", "grey", "mean", "blur"]
"""`black`: 0; `grey`: 0.5; `mean`: each image's mean colour; `blur`: the image itself, blurred with a standard
deviation of an eighth of its shorter side, so that colour and pose stay and features go."""


def checked_baseline(baseline: Baseline) -> Baseline:
    """Return the baseline if there is such a one.

    Raises:
        InputError: an unknown baseline.
    """
    return checked_choice("baseline", baseline, *get_args(Baseline))


def baseline_images(images: Tensor, baseline: Baseline) -> Tensor:
    """Baselines of images M×C×H×W in [0, 1], of the same shape."""
    if baseline == "black":
        return torch.zeros_like(images)
    if baseline == "grey":
        return torch.full_like(images, 0.5)
    if baseline == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    sigma = min(images.shape[2:]) / 8
    reach = min(int(3 * sigma), min(images.shape[2:]) - 1)  # the mirror is no wider than the image
    return blurred(images, (2 * reach + 1, sigma)) if sigma * reach > 0 else images
