"""How good reconstructions are: identity, likeness, and what a verifier makes of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.reconstruction.decoder import Decoder

__all__ = ["identity_cosines", "likeness", "reconstruct"]


@torch.no_grad()
def reconstruct(decoder: Decoder, embeddings: Tensor, batch_size: int = 64) -> Tensor:
    """Decode many embeddings (N×D) to faces at the recognizer's input size, N×3×H×W in [0, 1]."""
    chunks = torch.chunk(embeddings, max(1, -(-len(embeddings) // batch_size)))
    return torch.cat([decoder.faces(chunk) for chunk in chunks])


def identity_cosines(recognizer: Recognizer, decoder: Decoder, embeddings: Tensor) -> Tensor:
    """cos(f(D(e)), e) of each embedding (N×D): how much of the identity survives decoding; N values."""
    again = recognizer.embed(reconstruct(decoder, embeddings))
    return (again * embeddings).sum(dim=1)


def likeness(images: Iterable[Tensor], faces: Iterable[Tensor]) -> dict[str, float]:
    """Mean PSNR (dB) and mean SSIM (Wang et al., 2004) of pairs of images 3×H×W in [0, 1].

    Raises:
        InputError: no images.
    """
    pairs = [(_array(image), _array(face)) for image, face in zip(images, faces, strict=True)]
    if not pairs:
        raise InputError("likeness needs at least one pair of images")
    psnr = [peak_signal_noise_ratio(face, image, data_range=1.0) for image, face in pairs]
    ssim = [structural_similarity(face, image, data_range=1.0, channel_axis=0) for image, face in pairs]
    return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(ssim))}


def _array(image: Tensor) -> NDArray[np.float32]:
    return image.detach().cpu().float().numpy()
