"""Natural pairs: nothing is changed; evidence by region is compared with what the regions truly contribute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.files import atomic_path
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.natural.agreement import Regional, agreements
from xfr_plugin.evaluation.natural.strangers import mean_face, pose_matched
from xfr_plugin.evaluation.natural.truth import (
    OPERATORS,
    Operator,
    coalition_embeddings,
    player_masks,
    shapley_matrix,
)
from xfr_plugin.evaluation.protocol import EvaluationPair, MapProtocol, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import LastPair, chosen
from xfr_plugin.evaluation.store import writing

__all__ = ["AREA", "HALVES", "LEVEL", "SAID", "TRUE", "Natural"]

HALVES = ("strangers, one half", "strangers, other half")
"""Truths by disjoint sets of strangers: how far they agree is how far anything can be known."""

SAID, TRUE, AREA, LEVEL = "said", "true", "area", "level"
"""Metrics that hold what was compared, a number for each player, for what is computed over all pairs."""

_Embeddings = Mapping[str, NDArray[np.float32]]


class Natural(MapProtocol):
    """The probe's evidence by region against exact Shapley values of its regions.

    Ours. Players are seven regions of the probe and all that lies around the face, of which no more is said; v(S) is
    the score of the probe of which only S is left against the unchanged reference, and all 2^8 coalitions are shown
    to the recognizer. What is taken away is replaced in four ways (the variant), see `natural.truth.Operator`;
    strangers come from the people in the file of pairs, posed alike, and no method has them. Embeddings of coalitions
    are computed once a face, kept on disk, and serve every partner and every method.

    Measured: see `natural.agreement.agreements`; and over all pairs `specific`, the correlation of what is said of
    *this* pair, the mean over the pairs being taken off, see `natural.references`. Beside the methods: the noise
    ceiling (half of the strangers against the other half; for the other operators, the truth by strangers against
    theirs), the constant answer (the mean truth of the other pairs of that kind), and the area of each region.

    256 forwards for each stranger and operator, shared: 2,816 by default.

    Args:
        operators: see `natural.truth.Operator`.
        strangers: how many, an even number.

    Raises:
        InputError: an option out of range.
    """

    name = "natural"
    title = "Natural pairs"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "total": True,
        "rank": True,
        "density": True,
        "excess": True,
        "specific": True,
        "sign": True,
        "most for": True,
        "most against": True,
    }
    sides: Literal["both", "probe"] = "probe"
    options = ("operators", "strangers")

    def __init__(self, *, operators: Sequence[Operator] = OPERATORS, strangers: int = 8) -> None:
        self.operators = chosen("operators", operators, OPERATORS)
        self.strangers = 2 * checked_at_least("half of the strangers", strangers // 2, 1)
        self._truths: LastPair[dict[str, Regional]] = LastPair()

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterator[Measurement]:
        """Sum the map over the players, and compare."""
        truths = self._truths.get(pair, setting, lambda: self._measured(pair, setting))
        masks = player_masks(pair.probe_regions)[:-1]
        said = np.array([float(maps[0][mask].sum(dtype=np.float64)) for mask in masks])
        for operator in self.operators:
            for metric, value in agreements(said, truths[operator]).items():
                yield Measurement(operator, metric, value)
        yield from _listed("", SAID, said)
        yield from _listed("", AREA, _areas(masks))
        for name, truth in truths.items():
            yield from _listed(name, TRUE, truth.true)
            yield Measurement(name, LEVEL, truth.level, 0)

    def slices(self, facts: Mapping[str, object]) -> tuple[str, ...]:
        """Genuine and impostor pairs are different questions."""
        return ("genuine" if facts["genuine"] else "impostor",)

    def _measured(self, pair: EvaluationPair, setting: Setting) -> dict[str, Regional]:
        """Truths by operator, and by the halves of the strangers."""
        embeddings = self._embeddings(pair, setting)
        if setting.recognizer.gives == "scores":
            partner = np.ones(1)
        else:
            partner = setting.embed(pair.reference[None])[0].double().cpu().numpy()
        masks = player_masks(pair.probe_regions)
        found = {}
        for name, units in embeddings.items():
            values = units.astype(np.float64) @ partner
            true = (shapley_matrix(len(masks)) @ values)[:-1]
            found[name] = Regional(true, _areas(masks[:-1]), setting.threshold - float(values[0]))
        return found

    def _embeddings(self, pair: EvaluationPair, setting: Setting) -> _Embeddings:
        """From the disk, or made now; a run's folder holds one recognizer. Of one that gives scores only, those."""
        faces = setting.faces
        if faces is None or not pair.files:
            raise InputError("natural pairs are judged in a folder of faces, from which strangers are taken")
        strangers = pose_matched(faces, setting.people, pair.files, self.strangers, setting.seed)
        files = pair.files if setting.recognizer.gives == "scores" else pair.files[0]
        key = json.dumps([files, strangers, self.operators, setting.seed])
        name = hashlib.sha256(key.encode() + pair.probe.numpy().tobytes()).hexdigest()[:24]
        path = setting.cache / f"{name}.npz" if setting.cache and setting.cache.parent.is_dir() else None
        kept = _kept(path)
        if kept is None:
            kept = self._made(pair, strangers, setting)
            if path is not None:
                with writing(path), atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, **kept)  # type: ignore[arg-type]  # names of arrays are no options
        return kept

    def _made(self, pair: EvaluationPair, strangers: Sequence[str], setting: Setting) -> _Embeddings:
        faces = setting.faces
        assert faces is not None  # looked at before
        others, embed = [faces.pixels(file) for file in strangers], _embedder(pair, setting)
        donors: dict[Operator, list[Tensor]] = {
            "mean": [mean_face(faces, setting.people, setting.seed)],
            "blur": [],
            "black": [],
        }
        found: dict[str, NDArray[np.float32]] = {
            operator: coalition_embeddings(pair.probe, pair.probe_regions, operator, embed, donors[operator])
            for operator in self.operators
            if operator in donors
        }
        if "strangers" in self.operators:
            halves = [
                coalition_embeddings(pair.probe, pair.probe_regions, "strangers", embed, half)
                for half in (others[::2], others[1::2])
            ]
            found |= dict(zip(HALVES, halves, strict=True))
            found["strangers"] = np.mean(halves, axis=0)
        return found


def _embedder(pair: EvaluationPair, setting: Setting) -> Callable[[Tensor], Tensor]:
    """What faces are embedded by; where there are only scores, a row is the score with the pair's reference."""
    if setting.recognizer.gives != "scores":
        return setting.embed
    partner = setting.embed(pair.reference[None])
    return lambda images: setting.compare(setting.embed(images), partner)[:, None]


def _areas(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Shares of all that is in one of the masks."""
    sizes = masks.sum(axis=(1, 2)).astype(np.float64)
    return np.asarray(sizes / max(1.0, float(sizes.sum())))


def _listed(variant: str, metric: str, values: NDArray[np.float64]) -> Iterator[Measurement]:
    for place, value in enumerate(values):
        yield Measurement(variant, metric, float(value), place)


def _kept(path: Path | None) -> _Embeddings | None:
    try:
        if path is None:
            return None
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, BadZipFile):
        return None
