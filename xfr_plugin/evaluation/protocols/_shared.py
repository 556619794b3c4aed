"""What several protocols need: randomness by pair, orders of pixels, rank correlations, maps of changed pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr._base.pair import PairAttribution
from xfr_plugin.attr._base.prepared import pixel_maps
from xfr_plugin.attr.amortised.model import find_evidence
from xfr_plugin.attr.registry import Method
from xfr_plugin.base.statistics import SMOOTHING, map_correlations
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, PairMaps, Setting
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = [
    "Attributions",
    "LastPair",
    "Saliency",
    "build",
    "chosen",
    "curve_mean",
    "explained",
    "explained_probe",
    "generator_for",
    "is_correct",
    "percents",
    "probe_maps",
    "rank_correlation",
    "saliency_of",
    "salient_order",
    "side_of_threshold",
]

Map: TypeAlias = NDArray[np.floating]

Saliency: TypeAlias = Literal["evidence", "magnitude"]
"""`evidence`: the similar map of a genuine pair, the dissimilar map of an impostor pair: what speaks for the truth.
`magnitude`: whatever matters, of either sign."""

Choice = TypeVar("Choice", bound=str)
Shared = TypeVar("Shared")


class LastPair(Generic[Shared]):
    """What was computed for the pair judged last and does not depend on maps, so that it serves all methods.

    It depends on pair and setting alone, so it never changes a number; other pairs can come in between.
    """

    def __init__(self) -> None:
        self._last: tuple[EvaluationPair, Setting, Shared] | None = None

    def get(self, pair: EvaluationPair, setting: Setting, make: Callable[[], Shared]) -> Shared:
        """The value for this pair, made if the last one was for another."""
        if self._last is None or self._last[0] is not pair or self._last[1] is not setting:
            self._last = (pair, setting, make())
        return self._last[2]


def generator_for(setting: Setting, pair: EvaluationPair, purpose: str) -> np.random.Generator:
    """Random numbers that depend on the run's seed, the pair's name and their purpose, and on nothing else."""
    digest = hashlib.sha256(f"{setting.seed}/{purpose}/{pair.name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def saliency_of(signed: Map, genuine: bool, saliency: Saliency = "evidence") -> NDArray[np.float64]:
    """Saliency H×W that ranks pixels, from a signed map, see `Saliency`.

    It is signed, too: of evidence for a match, what argues against one comes last, behind what says nothing.
    """
    values = signed.astype(np.float64)
    if saliency == "magnitude":
        return np.abs(values)
    return values if genuine else -values


def salient_order(saliency: Map, rng: np.random.Generator) -> NDArray[np.intp]:
    """Flat indices of a map's values, the most salient first; ties in random order, so that no place is favoured."""
    values = saliency.ravel()
    order: NDArray[np.intp] = np.lexsort((rng.random(values.size), -values))
    return order


def rank_correlation(
    first: Map, second: Map, inside: NDArray[np.bool_], smoothing: float = SMOOTHING
) -> float:
    """Spearman's rank correlation of two maps H×W over the pixels of a mask, both blurred before.

    −1…1, NaN where a map is constant.
    """
    return float(map_correlations([first, second], inside, smoothing)[0, 1])


def side_of_threshold(pair: EvaluationPair) -> int:
    """1 for a genuine pair, −1 for an impostor pair: times s − τ, how far the score is on the right side."""
    return 1 if pair.genuine else -1


def is_correct(score: float, pair: EvaluationPair, threshold: float) -> bool:
    """Whether the decision at a score is the right one."""
    return (score >= threshold) == pair.genuine


def percents(steps: int) -> list[float]:
    """Where a curve of so many steps is measured, 0 to 100."""
    return [100 * step / steps for step in range(steps + 1)]


def curve_mean(values: Sequence[float]) -> float:
    """Area under a curve over evenly spaced places from 0 to 1, by the trapezoid rule."""
    curve = np.asarray(values, dtype=np.float64)
    return float((curve[1:] + curve[:-1]).mean() / 2)


def build(method: Method, setting: Setting, recognizer: Recognizer | None = None) -> PairAttribution:
    """The attribution of a method with its default options, for the run's recognizer or a changed one.

    A method that looks up a decoder or an evidence network for the recognizer gets, for a changed one, that of the
    unchanged.
    """
    options: dict[str, Any] = {}
    if recognizer is not None and method.options().get("decoder", False) is None:
        from xfr_plugin.reconstruction.files import find_decoder  # reads files

        options["decoder"] = find_decoder(setting.recognizer)
    if recognizer is not None and method.needs == "evidence":
        options["network"] = find_evidence(setting.recognizer)
    return method.build(recognizer or setting.recognizer, setting.threshold, **options)


class Attributions:
    """The attributions of methods for a run's recognizer, each built once: that can take longer than explaining."""

    def __init__(self) -> None:
        self._built: dict[str, tuple[Method, Setting, PairAttribution]] = {}

    def of(self, method: Method, setting: Setting) -> PairAttribution:
        """The attribution of a method, see `build`."""
        known = self._built.get(method.name)
        if known is None or known[0] is not method or known[1] is not setting:
            known = self._built[method.name] = (method, setting, build(method, setting))
        return known[2]


def explained(attribution: PairAttribution, images: tuple[Tensor, Tensor]) -> PairMaps:
    """Signed pixel maps of a pair, each H×W, from images 1×3×H×W."""
    probe, reference = (pixel_maps(side)[0] for side in attribution.attribute(images))
    return probe, reference


def explained_probe(
    attribution: PairAttribution, probe: Tensor, reference: Tensor, partner: Tensor
) -> NDArray[np.float32]:
    """Signed pixel map H×W of a probe 1×3×H×W.

    Args:
        attribution: explains it against the reference's embedding, or against the image if it reads both faces.
        probe: 1×3×H×W.
        reference: 1×3×H×W.
        partner: the reference's embedding, 1×D.
    """
    return pixel_maps(probe_maps(attribution, probe, reference, partner)).squeeze(0)


def probe_maps(attribution: PairAttribution, probes: Tensor, reference: Tensor, partner: Tensor) -> Tensor:
    """Signed maps N×3×H×W of probes against one reference; see `explained_probe`."""
    if attribution.reads_both_faces:
        maps: Tensor = attribution.attribute((probes, reference.to(probes).expand_as(probes)))[0]
    else:
        maps = attribution.attribute(probes, additional_forward_args=partner.to(probes))
    return maps


def chosen(what: str, values: Sequence[Choice], known: Sequence[str]) -> tuple[Choice, ...]:
    """Values of an option that takes several, each once.

    Raises:
        InputError: none is given, or one is not known.
    """
    unknown = [value for value in values if value not in known]
    if not values or unknown or isinstance(values, str):
        raise InputError(f"{what} must be some of {', '.join(known)}, got {values!r}")
    return tuple(dict.fromkeys(values))
