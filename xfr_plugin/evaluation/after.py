"""What needs the maps of all methods or of all pairs: agreement between methods, and each method's average map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.statistics import map_correlations
from xfr_plugin.evaluation.localisation import pixel_auc
from xfr_plugin.evaluation.pairs import PairEntry
from xfr_plugin.evaluation.protocol import PairMaps
from xfr_plugin.evaluation.protocols.planted_evidence.scores import blurred_saliency
from xfr_plugin.evaluation.results import AGREEMENT, Record
from xfr_plugin.evaluation.store import MapCache
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.swaps.planting import named_regions

__all__ = ["agreement", "average_maps_judged"]

Map = NDArray[np.float32]


def agreement(
    pairs: Sequence[PairEntry], methods: Sequence[str], maps: MapCache, faces: FaceFolder
) -> Iterable[Record]:
    """Spearman's rank correlation of the maps of every two methods on each pair, inside the face.

    Maps are blurred first, see `compare`; the mean of both faces, or the probe's alone where only it was explained.
    """
    for entry in pairs:
        found = {method: maps.get(method, entry.name) for method in methods}
        known = {method: both for method, both in found.items() if both is not None}
        if len(known) < 2:
            continue
        table = _correlated(list(known.values()), entry, faces)
        for row, first in enumerate(known):
            for column, second in enumerate(known):
                if row < column:
                    value = float(table[row, column])
                    yield Record(entry.name, first, AGREEMENT, second, "rank_correlation", None, value)
            others = np.delete(table[row], row)
            mean = float(np.median(others[np.isfinite(others)])) if np.isfinite(others).any() else np.nan
            yield Record(entry.name, first, AGREEMENT, "", "with_others", None, mean)


def average_maps_judged(
    plantings: Sequence[PairEntry], methods: Sequence[str], maps: MapCache, faces: FaceFolder
) -> Iterable[Record]:
    """Pixel AUC of each method's average map: what its maps show whatever the pair.

    For each pair the mean over the other pairs of that game, each map scaled to a root mean square of 1.
    """
    for method in methods:
        for game in ("dissimilar", "similar"):
            entries = [entry for entry in plantings if entry.planting and entry.planting.game == game]
            found = [(entry, both[0]) for entry in entries if (both := maps.get(method, entry.name))]
            if len(found) > 1:
                yield from _judged(method, found, faces)


def _judged(method: str, found: Sequence[tuple[PairEntry, Map]], faces: FaceFolder) -> Iterable[Record]:
    scaled = [_scaled(values) for _, values in found]
    total = np.sum(scaled, axis=0)
    for (entry, _), own in zip(found, scaled, strict=True):
        assert entry.planting is not None
        labels = faces.regions(entry.probe)
        others = (total - own) / (len(scaled) - 1)
        saliency = blurred_saliency(others.astype(np.float32), entry.planting)
        truth = labels.mask(*named_regions(entry.planting.region))
        value = pixel_auc(saliency, truth, labels.face)
        yield Record(entry.name, method, "planted", "average map", "auc", None, value)


def _scaled(values: Map) -> NDArray[np.float64]:
    root = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    return values.astype(np.float64) / root if root > 0 else np.zeros(values.shape)


def _correlated(both: Sequence[PairMaps], entry: PairEntry, faces: FaceFolder) -> NDArray[np.float64]:
    tables = [
        map_correlations([sides[side] for sides in both], faces.regions(file).face)
        for side, file in enumerate((entry.probe, entry.reference))
        if all(np.isfinite(sides[side]).all() for sides in both)
    ]
    result: NDArray[np.float64] = np.mean(tables, axis=0)
    return result
