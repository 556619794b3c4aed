"""The network of amortised evidence: from the features of two faces to what each region decides.

It reads the recognizer's own feature maps of both faces, one of every size, and its embeddings; compares them
place by place and region by region; and lets the regions compete, as only one may stand out. It predicts four numbers
of each region: the logits of being the one region that differs, and the one that is alike (each beside
"none of them"), and how far the score would rise with the partner's region, and fall with a stranger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin._moved import renamed_method
from xfr_plugin.recognition.features import FaceFeatures
from xfr_plugin.swaps.regions import EXCHANGED_REGIONS

__all__ = ["Answers", "EvidenceNetwork", "hypothesis_logits"]

GRID = 14
"""Rows and columns on which faces are compared."""

_HEADS = 4
_REGIONS = len(EXCHANGED_REGIONS)
_DROPPED, _FORGOTTEN = 0.1, 0.3
_SCALE = 10.0  # changes of the score are about a tenth


@dataclass(frozen=True)
class Answers:
    """What is predicted of N probes with R regions.

    Attributes:
        differs: logits of being the region that differs, and of "none", N×(R+1).
        alike: logits of being the region that is alike, and of "none", N×(R+1).
        gain: how far the score would rise, were the region the partner's, N×R.
        loss: how far it would fall, were the region a stranger's, N×R.
    """

    differs: Tensor
    alike: Tensor
    gain: Tensor
    loss: Tensor

    def __getitem__(self, some: slice) -> Answers:
        return Answers(self.differs[some], self.alike[some], self.gain[some], self.loss[some])


def hypothesis_logits(answers: Answers) -> Tensor:
    """Logits of what a pair is, N×(2R+1): each region is the one that differs, each is the one alike, or neither."""
    differs, alike = (logits[:, :-1] - logits[:, -1:] for logits in (answers.differs, answers.alike))
    return torch.cat((differs, alike, torch.zeros_like(differs[:, :1])), dim=1)


class EvidenceNetwork(nn.Module):
    """Compares two faces by regions; see the module.

    Args:
        channels: of the feature maps, in order.
        embedding_dim: length of the embeddings.
        width: channels of the comparison.
    """

    def __init__(self, channels: Sequence[int], embedding_dim: int, width: int = 96) -> None:
        super().__init__()
        self.channels, self.embedding_dim, self.width = tuple(channels), embedding_dim, width
        narrow = width // 2
        self.inputs = nn.ModuleList(_Input(count, narrow) for count in channels)
        self.tower = nn.Sequential(_conv(narrow * len(channels), width, 1), _Block(width), _Block(width))
        self.compare = nn.Sequential(_conv(3 * width, width, 1), _Block(width), _Block(width))
        self.drop, self.forget = nn.Dropout(_DROPPED), nn.Dropout(_FORGOTTEN)
        self.token = nn.Linear(5 * width, width)
        self.names = nn.Parameter(torch.randn(_REGIONS, width) * 0.02)
        self.whole = nn.Linear(2 * embedding_dim + 1, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, batch_first=True, norm_first=True)
        self.mix = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.region = nn.Linear(width, _HEADS)
        self.none = nn.Linear(width, 2)

    def forward(
        self, probe: FaceFeatures, reference: FaceFeatures, masks: tuple[Tensor, Tensor], present: Tensor
    ) -> Answers:
        """Predict what each region of the probes decides.

        Args:
            probe: of N faces.
            reference: of their partners.
            masks: regions of probe and reference, N×R×H×W of numbers in [0, 1].
            present: which regions the probe shows, N×R.
        """
        encoded = self.encode(probe), self.encode(reference)
        return self.predict(encoded, (probe.embeddings, reference.embeddings), masks, present)

    def encode(self, features: FaceFeatures) -> Tensor:
        """What is compared of N faces, N×C×G×G."""
        maps = [layer(values) for layer, values in zip(self.inputs, features.maps, strict=True)]
        encoded: Tensor = self.tower(torch.cat(maps, dim=1))
        return encoded

    def predict(
        self,
        encoded: tuple[Tensor, Tensor],
        embeddings: tuple[Tensor, Tensor],
        masks: tuple[Tensor, Tensor],
        present: Tensor,
    ) -> Answers:
        """The same as `forward`, from the encoded probes and references."""
        a, b = encoded
        compared = self.compare(torch.cat(((a - b).abs(), a * b, a), dim=1))
        own, other = (functional.adaptive_avg_pool2d(mask, GRID) for mask in masks)
        pa, pb, pc = _pooled(a, own), _pooled(b, other), _pooled(compared, own)
        pooled = torch.cat((pc, pa, pb, (pa - pb).abs(), pa * pb), dim=2)
        tokens = self.token(self.drop(pooled)) + self.names
        # embeddings tell who somebody is, which helps with people that are known from training only
        whole = self.whole(self.forget(_pair_of(*embeddings)))
        hidden = torch.cat((tokens, whole[:, None]), dim=1)
        padding = torch.cat((~present, torch.zeros_like(present[:, :1])), dim=1)
        mixed = self.norm(self.mix(hidden, src_key_padding_mask=padding))
        heads = self.region(mixed[:, :-1]).float().unbind(dim=2)
        none = self.none(mixed[:, -1]).float()
        differs, alike = (
            torch.cat((logits.masked_fill(~present, -torch.inf), none[:, i : i + 1]), dim=1)
            for i, logits in enumerate(heads[:2])
        )
        return Answers(differs, alike, heads[2] / _SCALE, heads[3] / _SCALE)

    look = renamed_method("look", "encode")
    answer = renamed_method("answer", "predict")


class _Input(nn.Module):
    """A feature map, normalised, narrowed and brought to the grid."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.normal = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        x = torch.relu(self.conv(self.normal(values)))
        if x.shape[-1] < GRID:
            return functional.interpolate(x, (GRID, GRID), mode="bilinear")
        return functional.adaptive_avg_pool2d(x, GRID)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(width, width, 3), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _pooled(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted means N×R×C of a map N×C×h×w."""
    total = weights.sum(dim=(2, 3))[..., None].clamp_min(1e-4)
    return torch.einsum("nchw,nrhw->nrc", values, weights.to(values)) / total.to(values)


def _pair_of(a: Tensor, b: Tensor) -> Tensor:
    scale = a.shape[1] ** 0.5
    return torch.cat(((a - b).abs() * scale, a * b * scale**2, (a * b).sum(dim=1, keepdim=True)), dim=1)
