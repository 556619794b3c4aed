"""What a protocol is: it looks at the maps of a method for a pair, or at the method itself, and gives numbers.

A protocol judges one pair at a time and keeps nothing between pairs, so that a run can be killed and resumed at any
pair, and pairs can be judged in any order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.registry import Method
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = [
    "EvaluationPair",
    "MapProtocol",
    "Measurement",
    "MethodProtocol",
    "PairMaps",
    "Protocol",
    "Setting",
]

PairMaps: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Signed maps H×W of the probe and of the reference, summed over colours; positive argues for a match."""


@dataclass(frozen=True)
class EvaluationPair:
    """A pair to be explained and judged.

    Attributes:
        name: identifies the pair in a run, in the manifest and in the results.
        probe: 8-bit RGB, 3×H×W, at the recognizer's input size.
        reference: the same.
        genuine: whether both show one person.
        probe_regions: named regions of the probe.
        reference_regions: named regions of the reference.
        files: that it was read from, relative to the folder of faces; empty if it was not.
    """

    name: str
    probe: Tensor
    reference: Tensor
    genuine: bool
    probe_regions: RegionMap
    reference_regions: RegionMap
    files: tuple[str, ...] = field(default=(), kw_only=True)

    def images(self, like: Recognizer) -> tuple[Tensor, Tensor]:
        """Probe and reference as attributions take them: 1×3×H×W in [0, 1]."""
        probe, reference = (
            (x[None].to(like.device).to(like.dtype) / 255) for x in (self.probe, self.reference)
        )
        return probe, reference


class Measurement(NamedTuple):
    """One number about one pair.

    Attributes:
        variant: which form of the protocol, in words that a table can carry ("black, probe"); "" if it has only one.
        metric: what was measured.
        value: the number; NaN where it is not defined for this pair.
        at: place on a curve (a share of the pixels removed, say); None for a number that stands alone.
    """

    variant: str
    metric: str
    value: float
    at: float | None = None


@dataclass
class Setting:
    """What all protocols of a run share.

    Attributes:
        recognizer: whose decisions are explained.
        threshold: decision threshold τ on the cosine.
        seed: of everything random. What is drawn for a pair depends on it and on the pair's name only.
        batch_size: images in one forward pass.
        faces: the folder that the pairs come from, for protocols that need other people's faces.
        people: who is there besides.
        photographs: folder of the photographs that probes come from, for protocols that draw on them.
        cache: a folder for what takes long to compute and does not depend on methods; None keeps nothing, nor does
            a machine of a cluster that has not the run's folder.
    """

    recognizer: Recognizer
    threshold: float
    seed: int = 0
    batch_size: int = 16
    faces: FaceFolder | None = None
    people: tuple[str, ...] = ()
    photographs: Path | None = None
    cache: Path | None = None
    _fast: Recognizer | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, object]:
        """For other processes, which make their own of what is made for speed."""
        return {**vars(self), "_fast": None}

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Unit embeddings N×D of images N×3×H×W, floating point in [0, 1] or 8-bit, in batches.

        Of a recognizer that gives scores only, what `Recognizer.represent` gives.
        """
        if self._fast is None:
            self._fast = fast_recognizer(self.recognizer)
        scale = 255 if images.dtype == torch.uint8 else 1
        return torch.cat(
            [
                self._fast.represent(chunk.to(self.recognizer.device).to(self.recognizer.dtype) / scale)
                for chunk in images.split(self.batch_size)
            ]
        )

    def compare(self, probes: Tensor, references: Tensor) -> Tensor:
        """Scores of rows that `embed` gave, see `Recognizer.compare`; one row serves for all of the other side."""
        return self.recognizer.compare(probes, references)

    def as_cosine(self, change: float) -> float:
        """A change of scores on the scale of cosines, which bounds of changes are meant for."""
        return change / self.recognizer.score_unit


class Protocol(ABC):
    """What every protocol has.

    Attributes:
        name: as given on the command line.
        title: in tables.
        higher_is_better: of each metric by which methods are ranked; others are shown without ranking.
        judges: which pairs it can say something about.
        sides: whose maps it looks at. If nobody looks at the reference's, methods explain the probe alone, against
            the reference's embedding, and the reference's map that is handed over is all NaN.
        planted: judges planted pairs, and no others.
        covered: judges pairs whose probe wears something, and no others.
        photographed: judges pairs whose probe comes with its photograph, and no others.
        options: attributes that change its numbers.
        along: what the places on its curves are, if it has any.
    """

    name: str
    title: str
    higher_is_better: ClassVar[dict[str, bool]]
    judges: Literal["genuine", "impostor", "all"] = "all"
    sides: Literal["both", "probe"] = "both"
    planted: bool = False
    covered: bool = False
    photographed: bool = False
    options: tuple[str, ...] = ()
    along: str = ""

    def settings(self) -> dict[str, object]:
        """Everything that changes its numbers; goes into the manifest of a run, which is not resumed with another."""
        values = {name: getattr(self, name) for name in self.options}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def salient_sign(self, pair: EvaluationPair) -> int:
        """Sign of the evidence that a pair is judged by: what a chance baseline without signs is multiplied with."""
        return 1 if pair.genuine else -1

    def slices(self, facts: Mapping[str, object]) -> tuple[str, ...]:
        """Groups of pairs, by title, that a pair with these facts counts in; a table has a block for each.

        Unless a protocol says otherwise, there is one group; and of planted pairs one for each kind of planting.
        """
        if not self.planted:
            return ("",)
        if facts["control"]:
            return ("controls",)
        if facts["strength"] != 1:
            return (f"strength {facts['strength']:g}",)
        return ("two regions" if "+" in str(facts["region"]) else "",)


class MapProtocol(Protocol):
    """Judges maps that are already there."""

    @abstractmethod
    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterable[Measurement]:
        """Numbers about the maps of a pair."""


class MethodProtocol(Protocol):
    """Judges the method itself: explains changed pairs, or the pair with a changed recognizer."""

    def salient_sign(self, pair: EvaluationPair) -> int:
        """A chance baseline is compared with itself, so it keeps its sign, unless a protocol says otherwise."""
        return 1

    @abstractmethod
    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterable[Measurement]:
        """Numbers about a method on a pair, whose unchanged maps are given."""
