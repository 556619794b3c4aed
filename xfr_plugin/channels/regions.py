"""Which embedding channels speak about which region of the face, and how sure that is over people.

A channel's share of a region is the part of its L1-normalised map (`decoded.decoded_changes`) that lies in the
region; the shares of a channel add up to one. Single channels' maps look much alike, so a share says little by
itself: it is to be read against the region's area and, better, against the average channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.options import checked_at_least
from xfr_plugin.base.statistics import ratio
from xfr_plugin.channels.decoded import Response, decoded_changes
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.faces.regions import RegionMap, template_regions
from xfr_plugin.reconstruction.decoder import Decoder
from xfr_plugin.reconstruction.network import to_input_size

__all__ = ["ChannelInRegion", "ChannelRegions", "channel_regions", "pooled_shares", "region_shares"]


@dataclass(frozen=True)
class ChannelInRegion:
    """A channel as seen from one region.

    Attributes:
        channel: index in the embedding.
        share: part of the channel's map in the region, 0…1.
        density: `share` over the region's part of the crop's area.
        lift: `share` over the average channel's share; 1 is no more than any channel.
        interval: confidence interval of `lift`, for all channels at once; None if no people were given.
    """

    channel: int
    share: float
    density: float
    lift: float
    interval: tuple[float, float] | None

    @property
    def distinct(self) -> bool:
        """Whether the whole interval of the lift lies above one."""
        return self.interval is not None and self.interval[0] > 1


@dataclass(frozen=True)
class ChannelRegions:
    """Matrix of channels × regions.

    Attributes:
        regions: names of the R regions.
        areas: part of the crop that each region covers, R; they add up to one.
        shares: D×R; each row adds up to one. The mean over people, or the atlas' if there are none.
        people: shares of each person, P×D×R; None if only the atlas was read.
        confidence: of the intervals, 0…1.
    """

    regions: tuple[str, ...]
    areas: NDArray[np.float64]
    shares: NDArray[np.float64]
    people: NDArray[np.float64] | None = None
    confidence: float = 0.95

    @property
    def average(self) -> NDArray[np.float64]:
        """The average channel's share of each region, R."""
        result: NDArray[np.float64] = self.shares.mean(axis=0)
        return result

    @property
    def density(self) -> NDArray[np.float64]:
        """Shares over areas, D×R: 1 is what a map without structure has. NaN for a region without area."""
        return ratio(self.shares, self.areas)

    @property
    def lift(self) -> NDArray[np.float64]:
        """Shares over the average channel's, D×R: 1 is what any channel has. NaN where no channel has any."""
        return ratio(self.shares, self.average)

    def intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends of the confidence intervals of `lift`, each D×R.

        Channel and average channel are compared within each person, and the ratio of their means gets its standard
        error over people by the delta method. For each region the D intervals hold at once (Bonferroni), so that
        they remain valid for a channel that was picked for its rank. They cover the choice of people only, not the
        choice of the decoder; people must be independent (one image of each).

        Raises:
            InputError: there are not at least two people.
        """
        from scipy import stats  # slow to import

        people = self._people()
        count, channels = people.shape[:2]
        average = people.mean(axis=1, keepdims=True)
        residuals = people - self.lift * average
        errors = ratio(residuals.std(axis=0, ddof=1) / np.sqrt(count), self.average)
        reach = stats.t.ppf(1 - (1 - self.confidence) / (2 * channels), count - 1) * errors
        return self.lift - reach, self.lift + reach

    def spread(self, *quantiles: float) -> NDArray[np.float64]:
        """Quantiles (each 0…1) of the shares over people, Q×D×R: how much a channel differs from face to face.

        Raises:
            InputError: there are not at least two people, or a quantile is none.
        """
        if not all(0 <= quantile <= 1 for quantile in quantiles):
            raise InputError(f"quantiles lie between 0 and 1, got {quantiles}")
        result: NDArray[np.float64] = np.quantile(self._people(), quantiles, axis=0)
        return result

    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of the shares over people, D×R.

        Raises:
            InputError: there are not at least two people.
        """
        result: NDArray[np.float64] = self._people().std(axis=0, ddof=1)
        return result

    def merged(self, **groups: Sequence[str]) -> ChannelRegions:
        """Join regions: `merged(eyes=("left_eye", "right_eye"))`; what is in no group is left out.

        Raises:
            UnknownNameError: no such region.
            InputError: no groups.
        """
        if not groups:
            raise InputError('name at least one group: merged(eyes=("left_eye", "right_eye"))')
        columns = [[self._column(name) for name in names] for names in groups.values()]

        def joined(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack([values[..., chosen].sum(axis=-1) for chosen in columns], axis=-1)

        return ChannelRegions(
            tuple(groups),
            joined(self.areas),
            joined(self.shares),
            None if self.people is None else joined(self.people),
            self.confidence,
        )

    def top(self, region: str, n: int = 10) -> list[ChannelInRegion]:
        """The n channels with the largest lift in a region, largest first.

        The order by share, density or lift is the same within a region.

        Raises:
            UnknownNameError: no such region.
            InputError: n is not at least 1.
        """
        column = self._column(region)
        checked_at_least("n", n, 1)
        order = np.argsort(-self.shares[:, column], kind="stable")[:n]
        ends = None if self.people is None else self.intervals()
        return [
            ChannelInRegion(
                channel=int(channel),
                share=float(self.shares[channel, column]),
                density=float(self.density[channel, column]),
                lift=float(self.lift[channel, column]),
                interval=None
                if ends is None
                else (float(ends[0][channel, column]), float(ends[1][channel, column])),
            )
            for channel in order
        ]

    def _people(self) -> NDArray[np.float64]:
        if self.people is None or len(self.people) < 2:
            raise InputError(
                "spread over people needs the embeddings of at least two: channel_regions(…, embeddings)"
            )
        return self.people

    def _column(self, region: str) -> int:
        if region not in self.regions:
            raise UnknownNameError.of("region", region, self.regions)
        return self.regions.index(region)


def channel_regions(
    decoder: Decoder,
    embeddings: Tensor | None = None,
    regions: RegionMap | None = None,
    *,
    confidence: float = 0.95,
    batch_size: int = 64,
) -> ChannelRegions:
    """Build the matrix of channels × regions, from a decoder's atlas, or from people's own maps with their spread.

    Args:
        decoder: of the recognizer.
        embeddings: unit embeddings P×D, one for each person, P ≥ 2; the atlas alone, if left out. D decodings each.
        regions: at the recognizer's input size; those of the template, if left out.
        confidence: of the intervals.
        batch_size: how many faces to decode at once.

    Raises:
        InputError: shapes or numbers that make no sense.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
    named = regions or template_regions(decoder.card.input_size)
    areas = np.array(list(named.areas().values()), dtype=np.float64) / named.labels.size
    if embeddings is None:
        shares = pooled_shares(decoder, decoder.atlas, named)
        return ChannelRegions(named.names, areas, shares, confidence=confidence)
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(
            f"embeddings must be P×D of at least two people, got shape {tuple(embeddings.shape)}"
        )
    people = region_shares(decoder, embeddings, named, batch_size=batch_size)
    return ChannelRegions(named.names, areas, people.mean(axis=0), people, confidence)


def region_shares(
    decoder: Decoder,
    embeddings: Tensor,
    regions: RegionMap,
    *,
    response: Response = "ablation",
    batch_size: int = 64,
) -> NDArray[np.float64]:
    """Share of each region in each person's map of each channel, P×D×R, one person at a time.

    A channel without any effect on a face counts as zero everywhere.
    """
    units = embeddings.to(decoder.mean_embedding)
    every = torch.arange(decoder.card.embedding_dim, device=units.device)[None]
    shares = [
        pooled_shares(
            decoder,
            decoded_changes(decoder, unit[None], every, response=response, batch_size=batch_size)[0],
            regions,
        )
        for unit in units
    ]
    return np.stack(shares)


def pooled_shares(decoder: Decoder, maps: Tensor, regions: RegionMap) -> NDArray[np.float64]:
    """Share of each region in maps K×h×w ≥ 0 after resizing to the input size, K×R.

    Resizing and summing are linear, so both are done by one matrix product at the decoder's size.

    Raises:
        InputError: the regions are not of the recognizer's input size.
    """
    if regions.size != decoder.card.input_size:
        raise InputError(
            f"regions have size {regions.size}, the recognizer's faces {decoder.card.input_size}"
        )
    labels = torch.from_numpy(regions.labels.astype(np.int64))
    masks = torch.nn.functional.one_hot(labels, len(regions.names)).permute(2, 0, 1)[:, None].double()
    start = torch.zeros(len(masks), 1, *maps.shape[1:], dtype=torch.float64)
    adjoint = torch.func.vjp(lambda small: to_input_size(small, regions.size), start)[1]
    weights = adjoint(masks)[0].flatten(1)
    sums = (maps.detach().double().cpu().flatten(1) @ weights.T).numpy()
    shares: NDArray[np.float64] = sums / np.maximum(sums.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return shares
