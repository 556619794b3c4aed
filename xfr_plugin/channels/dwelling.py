"""Which regions a face's own embedding dwells on, beside other people's.

A unit embedding's squared channels add up to one, and so does each L1-normalised channel map. The map
Σ_k e_k² M_k(e) therefore divides the embedding among the pixels: its sum over a region is the part of the embedding's
squared length that lives there. It is the saliency rule (`attr.evidence`) for a face paired with itself, without a
threshold. Most of it is the same for everybody, so it is compared with the average over people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.options import checked_choice
from xfr_plugin.base.statistics import ratio
from xfr_plugin.channels.regions import pooled_shares, region_shares
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap, template_regions
from xfr_plugin.reconstruction.decoder import Decoder

__all__ = ["ChannelWeight", "Dwelling", "channel_weights", "dwelling"]

ChannelWeight: TypeAlias = Literal["square", "absolute"]
"""How much a channel counts: e_k² / Σ e², or |e_k| / Σ |e|."""


@dataclass(frozen=True)
class Dwelling:
    """How embeddings divide among the regions of the face.

    Attributes:
        regions: names of the R regions.
        shares: N×R; each row adds up to one.
        people: the same of the people compared with, P×R; None if there were none.
        expected: what the average person has, R: the mean over `people`, or the atlas with all channels
            counting the same if there were none.
    """

    regions: tuple[str, ...]
    shares: NDArray[np.float64]
    people: NDArray[np.float64] | None
    expected: NDArray[np.float64]

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Shares over what the average person has, N×R: above 1, the embedding dwells on the region."""
        return ratio(self.shares, self.expected)

    @property
    def rank(self) -> NDArray[np.float64]:
        """Part of the people with a smaller share (ties count half), N×R, 0…1.

        Raises:
            InputError: no people were given.
        """
        if self.people is None:
            raise InputError("a rank needs people to compare with: pass their embeddings as population=…")
        below = self.people[None] < self.shares[:, None]
        equal = self.people[None] == self.shares[:, None]
        result: NDArray[np.float64] = (below + 0.5 * equal).mean(axis=1)
        return result


def channel_weights(embeddings: Tensor, weight: ChannelWeight = "square") -> Tensor:
    """How much each channel of embeddings N×D counts, N×D; each row adds up to one.

    Raises:
        InputError: an unknown weight.
    """
    checked_choice("weight", weight, "square", "absolute")
    magnitudes = embeddings.square() if weight == "square" else embeddings.abs()
    return magnitudes / magnitudes.sum(dim=1, keepdim=True)


def dwelling(
    decoder: Decoder,
    embeddings: Tensor,
    population: Tensor | None = None,
    regions: RegionMap | None = None,
    *,
    weight: ChannelWeight = "square",
    source: Literal["face", "atlas"] = "face",
    batch_size: int = 64,
) -> Dwelling:
    """Divide embeddings among regions, and compare with the average over people.

    Args:
        decoder: of the recognizer.
        embeddings: unit embeddings, N×D.
        population: those of other people, P×D, one for each; with `face` each costs D decodings.
        regions: at the recognizer's input size; those of the template, if left out.
        weight: see `ChannelWeight`.
        source: each face's own channel maps, or the atlas for everybody (no decoding).
        batch_size: how many faces to decode at once.

    Raises:
        InputError: shapes or options that make no sense.
    """
    checked_choice("source", source, "face", "atlas")
    named = regions or template_regions(decoder.card.input_size)
    atlas = pooled_shares(decoder, decoder.atlas, named)

    def divide(units: Tensor) -> NDArray[np.float64]:
        weights = channel_weights(units.detach(), weight).double().cpu().numpy()
        if source == "atlas":
            product: NDArray[np.float64] = weights @ atlas
            return product
        shares = region_shares(decoder, units, named, batch_size=batch_size)
        divided: NDArray[np.float64] = np.einsum("nk,nkr->nr", weights, shares)
        return divided

    people = None if population is None else divide(population)
    expected = atlas.mean(axis=0) if people is None else people.mean(axis=0)
    return Dwelling(named.names, divide(embeddings), people, expected)
