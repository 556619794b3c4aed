"""Maps of many pairs at once: pairs explained by the same method share its passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xfr_plugin.attr import EvidenceModel, PairAttribution
from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.registry import get_method
from xfr_plugin.explanation.pipeline import FacePair, PairMaps, attribute_pairs
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import Decoder

__all__ = ["Explainers"]

_AT_ONCE = 8
_KEPT = 2**28
"""Bytes."""


class Explainers:
    """Attribution methods of a recognizer.

    Args:
        recognizer: whose scores are explained.
        decoder: of the recognizer, if there is one.
        evidence: network of the recognizer, if there is one.
        thrifty: see `Deployment`.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        decoder: Decoder | None,
        evidence: EvidenceModel | None = None,
        *,
        thrifty: bool = True,
    ) -> None:
        self.recognizer = recognizer
        self.decoder = decoder
        self.evidence = evidence
        self.thrifty = thrifty
        self._layers: dict[str, tuple[str, ...]] = {}

    def can(self, method: str, images: int) -> bool:
        """Whether a method can explain a pair of which so many faces are images, 0 to 2."""
        if not get_method(method).fits(self.recognizer.gives):
            return False
        if get_method(method).needs == "decoder":
            return self.decoder is not None and self.decoder.regional is not None
        if get_method(method).needs == "evidence" and self.evidence is None:
            return False
        return images > 0

    def possible(self, methods: Iterable[str], images: int) -> list[str]:
        """Those of the methods that can."""
        return [name for name in methods if self.can(name, images)]

    def layers(self, methods: Iterable[str]) -> tuple[str, ...]:
        """Layers of the recognizer's network whose feature maps these methods will ask for."""
        for method in methods:
            if method not in self._layers:
                self._layers[method] = self._attribution(method, 0.0).layers
        return tuple(dict.fromkeys(layer for method in methods for layer in self._layers[method]))

    def maps(self, method: str, pairs: list[FacePair]) -> list[PairMaps]:
        """Maps for each pair.

        Raises:
            InputError: the method cannot explain one of them.
        """
        entry, groups = get_method(method), dict[object, list[int]]()
        for place, pair in enumerate(pairs):
            # those that can share passes: with an image on the same sides, and one threshold
            layout = (*(face.image is not None for face in pair.faces), pair.verification.threshold)
            groups.setdefault(layout, []).append(place)
        found: dict[int, PairMaps] = {}
        together = _AT_ONCE if entry.batchable else 1
        for places in groups.values():
            attribution = self._attribution(method, pairs[places[0]].verification.threshold)
            if isinstance(attribution, RegionIntervention):
                attribution.keep_effects(_KEPT)  # a gallery's probe is in pair after pair
            for start in range(0, len(places), together):
                chunk = places[start : start + together]
                # of interventions, errors cost no further pass
                errors = entry.needs == "scores"
                maps = attribute_pairs(attribution, [pairs[place] for place in chunk], errors=errors)
                found.update(zip(chunk, maps, strict=True))
        return [found[place] for place in range(len(pairs))]

    def given(self, method: str) -> dict[str, Any]:
        """Options that differ from the method's own."""
        return dict(get_method(method).service_options) if self.thrifty else {}

    def _attribution(self, method: str, threshold: float) -> PairAttribution:
        entry = get_method(method)
        options = self.given(method)
        if entry.needs == "decoder":
            options["decoder"] = self.decoder
        if entry.needs == "evidence":
            options["network"] = self.evidence
        return entry.build(self.recognizer, threshold, **options)
