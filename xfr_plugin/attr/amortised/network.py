"""The network of the fast form: from what a recognizer computes of a face to what each region does to its embedding.

Feature maps are averaged over each region; with the embedding, that is a row of numbers f for each region, of which
the main directions are kept, h. Two linear functions, of each region's own, say what taking the region away does to
the unit embedding u: how much of u is lost, α_r, and what else changes, at right angles to u:
E_r = α_r u + (1 − u uᵀ) W_r h. They are apart because what is uncertain is predicted small: of what else changes
little is sure, but that something of u is lost, is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.recognition.features import FaceFeatures
from xfr_plugin.swaps.regions import FINE_REGIONS, FaceRegions

__all__ = ["EvidenceNetwork", "RegionFeatures", "region_features", "rows_of"]

_REGIONS = len(FINE_REGIONS)
_PLACE = 5


class RegionFeatures:
    """What is known of the regions of N faces.

    Attributes:
        rows: N×R×F, means of the feature maps over each region, and where it lies.
        embeddings: of unit length, N×D.
        present: which regions the faces show, N×R.
    """

    def __init__(self, rows: Tensor, embeddings: Tensor, present: Tensor) -> None:
        self.rows, self.embeddings, self.present = rows, embeddings, present

    def __getitem__(self, some: slice | Tensor) -> RegionFeatures:
        return RegionFeatures(self.rows[some], self.embeddings[some], self.present[some])

    def to(self, like: Tensor) -> RegionFeatures:
        """In the type and on the device of a tensor."""
        return RegionFeatures(self.rows.to(like), self.embeddings.to(like), self.present.to(like.device))


def region_features(features: FaceFeatures, regions: Sequence[FaceRegions]) -> RegionFeatures:
    """Average the feature maps of N faces over their regions."""
    like = features.embeddings
    masks = torch.from_numpy(np.stack([own.masks for own in regions])).to(like)
    present = torch.from_numpy(np.stack([own.present for own in regions])).to(like.device)
    means = [_pooled(values.to(like), masks) for values in features.maps]
    return RegionFeatures(torch.cat([*means, _places(masks)], dim=2), like, present)


class EvidenceNetwork(nn.Module):
    """Predicts the effects of regions; see the module. It is fitted in closed form, by `training.evidence`.

    Args:
        channels: of the feature maps, in order.
        embedding_dim: length of the embeddings.
        width: directions of the rows that are kept.
    """

    def __init__(self, channels: Sequence[int], embedding_dim: int, width: int = 256) -> None:
        super().__init__()
        self.channels, self.embedding_dim, self.width = tuple(channels), embedding_dim, width
        self.directions = nn.Linear(sum(channels) + _PLACE + embedding_dim, width)
        self.weights = nn.Parameter(torch.randn(_REGIONS, width, embedding_dim + 1) * 0.02)
        self.means = nn.Parameter(torch.zeros(_REGIONS, embedding_dim + 1))

    def forward(self, known: RegionFeatures) -> Tensor:
        """Effects N×R×D; zero for regions that a face does not show."""
        units = known.embeddings[:, None]
        hidden = self.directions(rows_of(known))
        said = torch.einsum("nrw,rwd->nrd", hidden, self.weights) + self.means
        others, lost = said[..., :-1], said[..., -1:].clamp_min(0)
        others = others - (others * units).sum(dim=2, keepdim=True) * units
        effects: Tensor = (others + lost * units) * known.present[..., None]
        return effects


def rows_of(known: RegionFeatures) -> Tensor:
    """All that is known of each region and its face, N×R×F: numbers of the embedding are about 1."""
    units = known.embeddings * known.embeddings.shape[1] ** 0.5
    return torch.cat((known.rows, units[:, None].expand(-1, known.rows.shape[1], -1)), dim=2)


def _pooled(values: Tensor, masks: Tensor) -> Tensor:
    """Means N×R×C of maps N×C×h×w over masks N×R×H×W."""
    size = (values.shape[2], values.shape[3])
    weights = functional.adaptive_avg_pool2d(masks, size).flatten(2)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp_min(1e-6)
    return weights @ values.flatten(2).transpose(1, 2)


def _places(masks: Tensor) -> Tensor:
    """Area, centre and extent of each mask, N×R×5, as shares of the image."""
    area = masks.mean(dim=(2, 3))
    places = [area]
    for dim, other in ((2, 3), (3, 2)):
        share = masks.mean(dim=other) / area[..., None].clamp_min(1e-6) / masks.shape[dim]
        at = torch.linspace(-1, 1, masks.shape[dim]).to(masks)
        mean = share @ at
        places += [mean, (share @ at.square() - mean.square()).clamp_min(0).sqrt()]
    return torch.stack(places, dim=2)
