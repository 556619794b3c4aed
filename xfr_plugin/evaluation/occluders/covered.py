"""Pairs of which one photograph has something over the face, as it was taken."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xfr_plugin.base.documents import Document
from xfr_plugin.evaluation.protocol import EvaluationPair
from xfr_plugin.faces.regions import RegionMap

__all__ = ["Cover", "CoveredPair"]


class Cover(Document):
    """What hides a part of the probe, in the photograph as it was taken.

    Attributes:
        kind: in words.
        regions: the named regions that it covers.
        clean: file of another photo of the person, in which nothing does.
    """

    kind: str
    regions: tuple[str, ...]
    clean: str


@dataclass(frozen=True)
class CoveredPair(EvaluationPair):
    """A genuine pair of which the probe wears something, and the reference nothing.

    Attributes:
        cover: what it wears.
        clean: another photo of the probe's person, without it, 8-bit RGB, 3×H×W.
        clean_regions: its named regions.
    """

    cover: Cover
    clean: Tensor
    clean_regions: RegionMap
