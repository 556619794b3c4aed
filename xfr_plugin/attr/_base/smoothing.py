"""Gaussian blur of signed maps."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

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
    """Blur maps M×C×H×W over their pixels, mirrored at the border; None leaves them as they are.

    Raises:
        InputError: the kernel reaches further than the images do.
    """
    if blur is None:
        return maps
    kernel, sigma = blur
    reach = kernel // 2
    if reach >= min(maps.shape[-2:]):
        size = "×".join(map(str, maps.shape[-2:]))
        raise InputError(f"a blur by a kernel of {kernel} pixels is too wide for images of {size}: blur less")
    offsets = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    weights = functional.normalize(torch.exp(-0.5 * (offsets / sigma) ** 2), p=1, dim=0)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    padded = functional.pad(flat, (reach, reach, reach, reach), mode="reflect")
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1))
    smooth: Tensor = functional.conv2d(rows, weights.view(1, 1, 1, -1)).reshape(maps.shape)
    return smooth
