"""Exchanging regions of faces, and what an embedding does then: the measurement behind regional evidence.

What region r adds to a face A that takes it from a donor D is linear in both: δ_r = w_r (shift_r − (A − D)), where
w_r fades out over the region's outline, and shift_r is the mean of A − D along its seam, so that the region takes the
face's colour. A face with several regions exchanged is A + Σ δ_r: one matrix product for all of its versions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.masks import FeatheredMasks
from xfr_plugin.swaps.regions import COARSE_REGIONS, regions_of

__all__ = [
    "exchange_regions",
    "exchange_together",
    "exchanged_embeddings",
    "region_changes",
    "template_masks",
]


def template_masks(size: tuple[int, int]) -> FeatheredMasks:
    """Masks of the exchanged regions on the template, R×H×W."""
    return FeatheredMasks.of(regions_of([template_regions(size)])[0].grown)


def region_changes(faces: Tensor, donors: Tensor, masks: FeatheredMasks) -> Tensor:
    """What each region adds to a face that takes it from a donor, shifted to the face's colour along the seam (δ).

    Args:
        faces: N×C×H×W.
        donors: of the same shape; or N×R×C×H×W, another for each region.
        masks: R of them for all faces, or for each; on any device.

    Returns:
        N×R×C×H×W.
    """
    difference = faces - donors if donors.ndim == 4 else faces[:, None] - donors
    seams, weights = masks.seams.to(faces), masks.weights.to(faces)
    face, region = "nchw" if donors.ndim == 4 else "nrchw", "rhw" if seams.ndim == 3 else "nrhw"
    shifts = torch.einsum(f"{face},{region}->nrc", difference, seams)
    each = difference[:, None] if donors.ndim == 4 else difference
    return weights[..., None, :, :] * (shifts[..., None, None] - each)


def exchange_regions(faces: Tensor, donors: Tensor, masks: FeatheredMasks) -> Tensor:
    """Faces with each region replaced by a donor's, one region at a time; see `region_changes`.

    Returns:
        N×R×C×H×W in [0, 1].
    """
    return (faces[:, None] + region_changes(faces, donors, masks)).clamp(0, 1)


def exchange_together(faces: Tensor, changes: Tensor, exchanged: Tensor) -> Tensor:
    """Faces with several regions replaced at once.

    Where the weights of two of them overlap, both changes are added: `FeatheredMasks.shared` keeps their sum to that
    of one.

    Args:
        faces: N×C×H×W in [0, 1].
        changes: of their regions, N×R×C×H×W, from `region_changes`.
        exchanged: which regions are replaced in each version, M×R of bools.

    Returns:
        N×M×C×H×W in [0, 1].
    """
    added = exchanged.to(changes) @ changes.flatten(2)
    together: Tensor = (faces[:, None] + added.unflatten(2, changes.shape[2:])).clamp(0, 1)
    return together


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
    masks = template_masks(recognizer.input_size)
    count = max(1, batch_size // len(COARSE_REGIONS))
    for chunk, others in zip(faces.split(count), donors.split(count), strict=True):
        face, donor = (x.to(recognizer.device).to(recognizer.dtype) / 255 for x in (chunk, others))
        blends = exchange_regions(face, donor, masks).flatten(0, 1)
        embedded = recognizer.embed(torch.cat((face, donor, blends))).cpu()
        pair, rest = embedded[: 2 * len(face)], embedded[2 * len(face) :]
        yield pair[: len(face)], pair[len(face) :], rest.unflatten(0, (len(face), -1))
