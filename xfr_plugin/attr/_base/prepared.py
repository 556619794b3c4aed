"""What is known of the faces of pairs before they are explained, so that it is not computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.faces.regions import RegionMap

__all__ = ["Explained", "Prepared", "StandardErrors", "pixel_maps"]

StandardErrors: TypeAlias = tuple[Mapping[str, float], Mapping[str, float]]
"""Standard errors of the evidence by named region, of a probe and its reference."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One side of N pairs: all probes, or all references. What is not known is left out.

    Attributes:
        images: N×C×H×W; None where there are only embeddings.
        units: embeddings of unit length, N×D; may be left out where there are images.
        maps: feature maps N×c×h×w by name of the layer, see `PairAttribution.layers`.
        regions: each face's own named regions.
    """

    images: Tensor | None = None
    units: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    regions: Sequence[RegionMap] | None = None


@dataclass(frozen=True, eq=False)
class Explained:
    """Maps of N pairs.

    Attributes:
        probes: signed maps N×C×H×W, whose sum over colours is the map of the pixels; None where the method cannot
            explain that side.
        references: the same of the other side.
        errors: of each pair, where they were asked for and the method has them.
    """

    probes: Tensor | None
    references: Tensor | None
    errors: Sequence[StandardErrors] | None = None


def pixel_maps(maps: Tensor) -> NDArray[np.float32]:
    """Maps of pixels N×H×W, the sums over the colours of maps N×C×H×W."""
    summed: NDArray[np.float32] = maps.detach().sum(dim=1).to("cpu", torch.float32).numpy()
    return summed
