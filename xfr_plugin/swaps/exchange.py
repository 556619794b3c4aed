"""What an embedding does when a region of the face is exchanged: the measurement behind regional evidence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from torch import Tensor

from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.regions import EXCHANGED_REGIONS

__all__ = ["FeatheredMasks", "RegionMasks", "exchange_regions", "exchanged_embeddings"]


_GROWTH = 2 / 112
_FEATHER = 1.5 / 112


class FeatheredMasks:
    """Masks that fade out over a few pixels, and their seams.

    Args:
        masks: R×H×W, none of them empty.
        device: where the faces will be.

    Attributes:
        weights: R×1×H×W in [0, 1].
        seams: R×1×H×W, the ring where face and donor meet, each summing to one.
    """

    def __init__(self, masks: NDArray[np.bool_], device: torch.device | str = "cpu") -> None:
        weights, seams = [], []
        for mask in masks:
            weights.append(gaussian_filter(mask.astype(np.float32), _FEATHER * masks.shape[1]))
            seam = binary_dilation(mask, iterations=2) & ~binary_erosion(mask, border_value=1)
            seams.append(seam / seam.sum())
        self.weights = torch.from_numpy(np.stack(weights))[:, None].to(device)
        self.seams = torch.from_numpy(np.stack(seams)).float()[:, None].to(device)


class RegionMasks(FeatheredMasks):
    """Feathered masks of the exchanged regions on the template, and their seams.

    Args:
        size: height and width of the aligned faces.
        device: where the faces will be.

    Attributes:
        names: of the R regions.
    """

    def __init__(self, size: tuple[int, int], device: torch.device | str = "cpu") -> None:
        labels = template_regions(size)
        self.names = tuple(EXCHANGED_REGIONS)
        growth = max(1, round(_GROWTH * size[0]))
        masks = [
            binary_dilation(labels.mask(*parts), iterations=growth) for parts in EXCHANGED_REGIONS.values()
        ]
        super().__init__(np.stack(masks), device)


def exchange_regions(faces: Tensor, donors: Tensor, masks: FeatheredMasks) -> Tensor:
    """Faces with each region replaced by a donor's, shifted to the face's colour along the seam.

    Args:
        faces: N×3×H×W in [0, 1].
        donors: of the same shape.
        masks: R of them, of that size.

    Returns:
        N×R×3×H×W in [0, 1].
    """
    difference = faces - donors
    along_seams = torch.einsum("nchw,rhw->nrc", difference, masks.seams[:, 0].to(faces))
    change = along_seams[..., None, None] - difference[:, None]
    blended: Tensor = (faces[:, None] + masks.weights.to(faces) * change).clamp(0, 1)
    return blended


@torch.no_grad()
def exchanged_embeddings(
    recognizer: Recognizer, faces: Tensor, donors: Tensor, batch_size: int = 64
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Embed faces, donors, and the faces with each region exchanged.

    Args:
        recognizer: embeds; the work is done where it is.
        faces: 8-bit RGB, N×3×H×W.
        donors: of the same shape.
        batch_size: images embedded at once, about.

    Yields:
        For a chunk of n pairs: unit embeddings of the faces n×D, of the donors n×D, and of the blends n×R×D.
    """
    masks = RegionMasks(recognizer.input_size, recognizer.device)
    count = max(1, batch_size // len(masks.names))
    for chunk, others in zip(faces.split(count), donors.split(count), strict=True):
        face, donor = (x.to(recognizer.device).to(recognizer.dtype) / 255 for x in (chunk, others))
        blends = exchange_regions(face, donor, masks).flatten(0, 1)
        embedded = recognizer.embed(torch.cat((face, donor, blends))).cpu()
        pair, rest = embedded[: 2 * len(face)], embedded[2 * len(face) :]
        yield pair[: len(face)], pair[len(face) :], rest.unflatten(0, (len(face), -1))
