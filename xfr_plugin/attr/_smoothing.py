"""Gaussian blur of signed maps."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from xfr_plugin.errors import InputError

__all__ = ["Blur", "blurred", "checked_blur"]

Blur: TypeAlias = tuple[int, float]
"""Kernel size (odd) and standard deviation of a Gaussian blur, in pixels."""


def checked_blur(blur: Blur | None) -> Blur | None:
    """Return the blur if it makes sense.

    Raises:
        InputError: the kernel is not odd and positive, or the deviation not positive.
    """
    if blur is None:
        return None
    kernel, sigma = blur
    if kernel < 1 or kernel % 2 == 0 or sigma <= 0:
        raise InputError(f"blur must be (odd kernel size, positive sigma), got {blur}")
    return int(kernel), float(sigma)


def blurred(maps: Tensor, blur: Blur | None) -> Tensor:
    """Blur maps M×C×H×W over their pixels, mirrored at the border; None leaves them as they are."""
    if blur is None:
        return maps
    kernel, sigma = blur
    smooth: Tensor = gaussian_blur(maps, [kernel, kernel], [sigma, sigma])
    return smooth
