"""Measuring regional evidence for a decoder that is already trained."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.reconstruction.decoder import Decoder
from xfr_plugin.reconstruction.files import load_decoder, save_decoder
from xfr_plugin.training.faces_data import FaceSet, embed_faces, find_faces, read_faces
from xfr_plugin.training.regional_fit import fit_regional

__all__ = ["add_regional_evidence", "embed_with_mirror"]

_PHOTOS = 3
"""So many of each person at most."""


def add_regional_evidence(
    source: str | os.PathLike[str],
    recognizer: Recognizer,
    faces: Path,
    out: Path,
    *,
    exchanges: int = 3000,
    seed: int = 0,
) -> Decoder:
    """Measure a decoder's regional evidence anew, and write everything to `out`.

    Args:
        source: name or file of the decoder.
        recognizer: the one that it was trained for.
        faces: folder of aligned faces of training people, see `find_faces`.
        out: file to write; may be the decoder's own.
        exchanges: see `fit_regional`.
        seed: of the draw.

    Returns:
        The decoder with its regional evidence.

    Raises:
        WeightsError: the decoder cannot be read.
        InputError: it is another recognizer's, or there are no faces.
    """
    decoder = load_decoder(source, recognizer)
    chosen = {name: files[:_PHOTOS] for name, files in find_faces(faces, None).items()}
    images = read_faces(faces, chosen, recognizer.input_size)
    decoder.regional = fit_regional(
        recognizer,
        decoder,
        images.images,
        torch.from_numpy(images.people),
        embed_with_mirror(recognizer, images),
        exchanges=exchanges,
        seed=seed,
    )
    save_decoder(decoder, out)
    return decoder


def embed_with_mirror(recognizer: Recognizer, faces: FaceSet) -> torch.Tensor:
    """Embeddings of the faces and of their mirror images, N×2×D."""
    mirrored = FaceSet(faces.images.flip(3), faces.people, faces.files)
    return torch.stack((embed_faces(recognizer, faces), embed_faces(recognizer, mirrored)), dim=1)
