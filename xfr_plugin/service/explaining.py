"""Maps of many pairs at once: questions to the same method share its passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr import Amortised, EvidenceModel, ReconstructionSaliency
from xfr_plugin.attr.registry import METHODS, get_method
from xfr_plugin.errors import InputError
from xfr_plugin.faces import RegionMap
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.features import Seen
from xfr_plugin.reconstruction import Decoder
from xfr_plugin.service.guard import NETWORKS

__all__ = ["OPTIONS", "SHARED", "Explainers", "Maps", "Question", "Side"]

Maps: TypeAlias = tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]
"""Signed maps H×W of probe and reference; None for a side that the method cannot explain."""

SHARED: Sequence[str] = METHODS.names(lambda method: method.batchable)
"""Methods that give a pair the same maps in a batch as alone (tests). Others, that draw samples, run alone."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    name: method.service_options for name, method in METHODS.items() if method.service_options
}
"""Options that differ from a method's defaults here, where time is dear (docs/serving.md says what it costs)."""

_AT_ONCE = 8


@dataclass(frozen=True)
class Side:
    """A face.

    Attributes:
        unit: embedding, D.
        image: aligned, 3×H×W in [0, 1], where there is one.
        maps: feature maps C×h×w that the evidence network reads, where they were kept.
        labels: named regions, where they are known.
    """

    unit: Tensor
    image: Tensor | None = None
    maps: tuple[Tensor, ...] = ()
    labels: RegionMap | None = None


@dataclass(frozen=True)
class Question:
    """Why does this pair score as it does against this threshold?"""

    probe: Side
    reference: Side
    threshold: float

    @property
    def layout(self) -> tuple[bool, bool, float]:
        """Questions of one layout can share passes: which sides have an image, and the threshold."""
        return self.probe.image is not None, self.reference.image is not None, self.threshold


class Explainers:
    """Attribution methods of a recognizer.

    Args:
        recognizer: whose scores are explained.
        decoder: of the recognizer, if there is one.
        evidence: network of the recognizer, if there is one.
    """

    def __init__(
        self, recognizer: Recognizer, decoder: Decoder | None, evidence: EvidenceModel | None = None
    ) -> None:
        self.recognizer = recognizer
        self.decoder = decoder
        self.evidence = evidence

    def can(self, method: str, images: int) -> bool:
        """Whether a method can explain a pair of which so many faces are images, 0 to 2."""
        if get_method(method).needs == "decoder":
            return self.decoder is not None and self.decoder.regional is not None
        if get_method(method).needs == "evidence":
            return self.evidence is not None and images == 2
        return images > 0

    def possible(self, methods: Iterable[str], images: int) -> list[str]:
        """Those of the methods that can."""
        return [name for name in methods if self.can(name, images)]

    def maps(self, method: str, questions: list[Question]) -> list[Maps]:
        """Maps for each question.

        Raises:
            InputError: the method cannot explain one of them.
        """
        groups: dict[object, list[int]] = {}
        for place, question in enumerate(questions):
            key = question.layout if method in SHARED else place
            groups.setdefault(key, []).append(place)
        found: list[Maps] = [(None, None)] * len(questions)
        for places in groups.values():
            for start in range(0, len(places), _AT_ONCE):
                chunk = places[start : start + _AT_ONCE]
                answers = self._together(method, [questions[place] for place in chunk])
                for place, maps in zip(chunk, answers, strict=True):
                    found[place] = maps
        return found

    def _together(self, method: str, questions: list[Question]) -> list[Maps]:
        if method == "reconstruction":
            with NETWORKS.shared():
                return self._from_embeddings(questions)
        if method == "amortised" and all(side.maps for q in questions for side in (q.probe, q.reference)):
            with NETWORKS.shared():
                return self._from_features(questions)
        with NETWORKS.exclusive():
            return self._through_network(method, questions)

    def _through_network(self, method: str, questions: list[Question]) -> list[Maps]:
        first = questions[0]
        with_probe, with_reference, threshold = first.layout
        entry = get_method(method)
        loaded = {"network": self.evidence} if entry.needs == "evidence" else {}
        attribution = entry.build(self.recognizer, threshold, **OPTIONS.get(method, {}), **loaded)
        probes, references = [q.probe for q in questions], [q.reference for q in questions]
        if with_probe and with_reference:
            maps = attribution.attribute((_images(probes), _images(references)))
            return list(zip(*map(_summed, maps), strict=True))
        if with_probe:
            alone = attribution.attribute(_images(probes), additional_forward_args=_units(references))
            return [(values, None) for values in _summed(alone)]
        if with_reference:  # the score is symmetric
            alone = attribution.attribute(_images(references), additional_forward_args=_units(probes))
            return [(None, values) for values in _summed(alone)]
        raise InputError(
            f"{method} needs an image: stored embeddings alone are explained by reconstruction only"
        )

    def _from_embeddings(self, questions: list[Question]) -> list[Maps]:
        """The embeddings are known, so nothing is passed through the recognizer again."""
        units = torch.cat([_units([q.probe for q in questions]), _units([q.reference for q in questions])])
        height, width = self.recognizer.input_size
        blank = units.new_zeros(()).expand(len(questions), 3, height, width)
        attribution = ReconstructionSaliency(lambda _: units, questions[0].threshold, decoder=self.decoder)
        maps = attribution.attribute((blank, blank))
        return list(zip(*map(_summed, maps), strict=True))

    def _from_features(self, questions: list[Question]) -> list[Maps]:
        """The feature maps are known too, so neither."""
        sides = [q.probe for q in questions] + [q.reference for q in questions]
        seen = Seen(
            tuple(torch.stack(kind) for kind in zip(*(side.maps for side in sides), strict=True)),
            _units(sides),
        )
        labels = [side.labels for side in sides if side.labels is not None]
        if len(labels) < len(sides):
            labels = find_regions(_images(sides))
        attribution = Amortised(
            self.recognizer, questions[0].threshold, network=self.evidence, **OPTIONS["amortised"]
        )
        maps = list(attribution.maps_of(seen, labels).float().cpu().numpy())
        return list(zip(maps[: len(questions)], maps[len(questions) :], strict=True))


def _images(sides: list[Side]) -> Tensor:
    return torch.stack([side.image for side in sides if side.image is not None])


def _units(sides: list[Side]) -> Tensor:
    return torch.stack([side.unit for side in sides])


def _summed(maps: Tensor) -> list[NDArray[np.float32]]:
    """Sum over colours: N maps H×W."""
    return list(maps.sum(dim=1).float().cpu().numpy())
