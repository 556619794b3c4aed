"""Occluders on photographs as they were taken: the face is found and aligned again before the map is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xfr_plugin.attr.registry import Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.occluders.kinds import occlude
from xfr_plugin.evaluation.occluders.photographed import FaceAgain, PhotographedPair
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols.occluders import Changed, Occluders

__all__ = ["Photographs"]


class Photographs(Occluders):
    """The same things drawn over the probe in its photograph, at the photograph's own landmarks and resolution.

    Ours. Then the chain runs again: the face is detected and aligned, and methods find its outlines anew, so that
    what is done wrong there counts too. The truth is the drawn area, taken through the new alignment; regions and the
    map of the clean face are carried to where they lie now. Measured as by `Occluders`, and, of every kind, `lost`:
    1 if no face is found any more, or only one that is further than the eyes' distance off. Such a photograph is
    judged no further, since there is nothing to explain.

    16 detections, 18 forwards, shared; `count` explanations of the probe.

    Args:
        kinds: keys of `OCCLUDERS`.
        count: how many of those that move the score are explained.

    Raises:
        InputError: an unknown kind.
    """

    name = "photographs"
    title = "Occluders drawn on photographs"
    photographed = True

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Draw, find the face again, see which lower the score, explain."""
        yield from super().judge(pair, maps, method, setting)
        found = {one.kind for one in self._all(pair, setting)}
        yield Measurement("", "lost", 1 - len(found) / len(self.kinds))
        for kind in self.kinds:
            yield Measurement(kind, "lost", float(kind not in found))

    def _changed(self, pair: EvaluationPair, kind: str, rng: np.random.Generator) -> Changed | None:
        if not isinstance(pair, PhotographedPair):
            raise InputError("photographs can only be drawn on where pairs come with them")
        drawn = occlude((pair.photo / 255).astype(np.float32), pair.landmarks, kind, rng)
        face = FaceAgain.found(pair, np.rint(drawn.image * 255).astype(np.uint8))
        if face is None:
            return None
        return Changed(face.pixels, face.mask(drawn.covered), face.regions(pair.probe_regions), face.map)
