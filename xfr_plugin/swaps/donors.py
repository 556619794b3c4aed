"""Faces of nobody in particular: the mean of the training faces, and faces that were never anybody's."""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from xfr_plugin.base.randomness import seeded
from xfr_plugin.base.weights import read_weights
from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import fit_aligned
from xfr_plugin.reconstruction.files import list_decoders, load_decoder
from xfr_plugin.reconstruction.network import to_input_size

__all__ = ["COMPOSITES", "as_images", "composite_faces", "population_face", "synthetic_faces"]

COMPOSITES = 12
"""How many composite faces ship."""

_SOURCE = "xfr_compact128_decoder"


@cache
def population_face(size: tuple[int, int] = (112, 112)) -> Tensor:
    """Mean of the aligned faces on which the shipped decoders were trained.

    Args:
        size: height and width in pixels.

    Returns:
        1×3×H×W in [0, 1].
    """
    state, _ = read_weights(list_decoders()[_SOURCE])
    square = to_input_size(state["mean_face"].float()[None], (112, 112))[0].permute(1, 2, 0)
    face = fit_aligned((square.clamp(0, 1) * 255 + 0.5).byte().numpy(), size)
    return torch.from_numpy(face).permute(2, 0, 1)[None] / 255


@cache
def synthetic_faces(count: int, size: tuple[int, int] = (112, 112), seed: int = 0) -> Tensor:
    """Faces of people who do not exist: decoded from random directions around the mean embedding.

    They come from the shipped decoder of one recognizer and serve for any other: they are faces, of nobody.

    Args:
        count: how many.
        size: height and width in pixels.
        seed: of the draw; the first n faces of a seed are the same whatever the count, but for rounding (1/255).

    Returns:
        N×3×H×W in [0, 1].
    """
    with seeded(0):  # networks are born with random weights
        decoder = load_decoder(_SOURCE)
    mean = decoder.mean_embedding
    drawn = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed)) / len(mean) ** 0.5
    with torch.no_grad():
        faces = decoder.faces(functional.normalize(mean + drawn, dim=1)).clamp(0, 1)
    pixels = (faces.permute(0, 2, 3, 1) * 255 + 0.5).byte().numpy()
    fitted = torch.stack([torch.from_numpy(fit_aligned(face, size)) for face in pixels])
    return fitted.permute(0, 3, 1, 2).float() / 255


def as_images(faces: Tensor, images: Tensor) -> Tensor:
    """Faces in the type and on the device of images N×C×H×W, grey where these are not RGB."""
    faces, channels = faces.to(images), images.shape[1]
    is_same = faces.shape[1] == channels
    return faces if is_same else faces.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)


@cache
def composite_faces(count: int, size: tuple[int, int] = (112, 112)) -> Tensor:
    """Faces of nobody, each a mean of three people who were brought to one shape; see `benchmarks/composites.py`.

    Args:
        count: how many, `COMPOSITES` at most.
        size: height and width in pixels.

    Returns:
        N×3×H×W in [0, 1].

    Raises:
        InputError: there are not so many.
    """
    if not 1 <= count <= COMPOSITES:
        raise InputError(f"there are {COMPOSITES} composite faces, got donors={count}: pass a population")
    with resources.as_file(resources.files("xfr_plugin.swaps") / "composites.png") as path:
        strip = np.array(Image.open(path).convert("RGB"))
    faces = np.split(strip, COMPOSITES, axis=1)[:count]
    fitted = torch.stack([torch.from_numpy(fit_aligned(face, size)) for face in faces])
    return fitted.permute(0, 3, 1, 2).float() / 255
