"""Parts of a face that are removed as a whole: superpixels, or the named regions of the template."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.options import checked_choice
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import template_regions

__all__ = ["Parts", "checked_parts", "face_parts"]

Parts: TypeAlias = Literal["slic", "regions"]
"""`slic`: superpixels of the image (Achanta et al., 2012, as in scikit-image); `regions`: the named regions of the
aligned face (eyes, brows, nose, mouth, cheeks, forehead, chin, outside)."""


def checked_parts(parts: Parts) -> Parts:
    """Return the kind of parts if there is such a one.

    Raises:
        InputError: an unknown kind.
    """
    checked_choice("parts", parts, "slic", "regions")
    return parts


def face_parts(image: Tensor, parts: Parts, count: int) -> Tensor:
    """Label map 1×1×H×W, 0…K−1, of one image C×H×W in [0, 1].

    Args:
        image: the aligned face.
        parts: see `Parts`.
        count: superpixels wanted; the algorithm gives about as many.

    Raises:
        InputError: the image has only one part.
    """
    size = image.shape[1], image.shape[2]
    labels = template_regions(size).labels if parts == "regions" else _superpixels(image, count)
    names, contiguous = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise InputError("the image has only one part: ask for more superpixels")
    mask = torch.from_numpy(contiguous.reshape(labels.shape).astype(np.int64))
    return mask[None, None].to(image.device)


def _superpixels(image: Tensor, count: int) -> NDArray[np.integer[Any]]:
    from skimage.segmentation import slic  # slow to import

    pixels = image.detach().permute(1, 2, 0).cpu().double().numpy()
    labels: NDArray[np.int64] = np.zeros(pixels.shape[:2], dtype=np.int64)
    for compactness in (0.1, 1.0, 10.0, 100.0):  # from the image's own shapes to nearly a grid
        labels = slic(
            pixels,
            n_segments=count,
            compactness=compactness,
            start_label=0,
            channel_axis=-1,
            convert2lab=False,
        )
        if labels.max() > 0:
            break
    return labels
