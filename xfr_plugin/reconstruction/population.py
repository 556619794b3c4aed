"""The face of nobody in particular."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from xfr_plugin.faces.alignment import fit_aligned
from xfr_plugin.recognition.weights import read_weights
from xfr_plugin.reconstruction.files import list_decoders
from xfr_plugin.reconstruction.losses import to_input_size

__all__ = ["population_face"]

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
