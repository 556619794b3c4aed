"""One pair, many methods: their maps side by side, what they cost, and how far they agree."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin._version import __version__
from xfr_plugin.attr.registry import METHODS, Method, get_method
from xfr_plugin.base.equality import ArraysCompared
from xfr_plugin.base.memory import measured_peak
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.statistics import SMOOTHING, checked_smoothing, map_correlations
from xfr_plugin.channels.pullback import pull_back
from xfr_plugin.errors import InputError, UnknownNameError, in_one_line
from xfr_plugin.explanation.api import DEFAULT_RECOGNIZER
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.explanation.faithfulness import PairEffects
from xfr_plugin.explanation.pipeline import (
    FacePair,
    RecognizerSource,
    attribute_pairs,
    check_pair,
    explanation_of,
    find_pair_regions,
    measure_pair,
    open_pair,
    open_recognizer,
    timed,
)
from xfr_plugin.explanation.verification import Verification, choose_threshold
from xfr_plugin.faces import Alignment, Detector, PhotoSource, RegionMap, template_regions
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.fingerprint import fingerprints_kept

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = [
    "QUICK_METHODS",
    "Agreement",
    "Comparison",
    "MethodChoice",
    "MethodResult",
    "check_options",
    "chosen_methods",
    "compare",
    "map_correlations",
    "rank_agreement",
]

QUICK_METHODS: Sequence[str] = METHODS.names(lambda method: method.compared)
"""What `compare` runs if it is not told: one or two of each family, without the slow ones."""

MethodChoice = Sequence[str] | Literal["all"] | None
"""Names of methods; `all` of them; or the quick ones."""

Progress = Callable[[str, int, int], None]
"""Called before each method with its name, its number from 1, and how many there are."""


@dataclass(frozen=True, eq=False)
class MethodResult(ArraysCompared):
    """What one method answered.

    Attributes:
        method: name of the method.
        explanation: its maps and evidence by region; None if it failed.
        seconds: wall time of building the attribution and of explaining both faces, at its first call, when
            embeddings and regions are known. The network itself has run before, forward and backward.
        peak_memory: extra memory at its worst, in bytes, see `memory.measured_peak`; None where not measured.
        error: why it failed, in one line; None if it did not.
    """

    method: str
    explanation: Explanation | None
    seconds: float
    peak_memory: int | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Agreement(ArraysCompared):
    """Spearman's rank correlation between the maps of every two methods, face by face.

    Attributes:
        methods: names, in the order of rows and columns.
        probe: K×K, −1…1; NaN where a map is constant over the face.
        reference: the same for the other face.
        smoothing: σ of the Gaussian blur before, as a share of the face's height; 0 for none.
    """

    methods: tuple[str, ...]
    probe: NDArray[np.float64]
    reference: NDArray[np.float64]
    smoothing: float

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of both faces, K×K."""
        both: NDArray[np.float64] = (self.probe + self.reference) / 2
        return both

    def with_others(self, method: str) -> float:
        """Median agreement of a method with each other one, over both faces; NaN if there is none."""
        row = np.delete(self.mean[self.methods.index(method)], self.methods.index(method))
        known = row[np.isfinite(row)]
        return float(np.median(known)) if known.size else float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(ArraysCompared):
    """Many methods' answers about one pair.

    Attributes:
        verification: the decision that they explain.
        faces: aligned probe and reference, H×W×3, 0…255.
        results: one for each method, in the order asked for; failed ones included.
        agreement: between the methods that did not fail.
        notes: what may make all answers less reliable, in words.
        timings: seconds of what was done once: `load`, `faces`, `verify`, `regions`, `warm_up`.
        version: of this package.
    """

    verification: Verification
    faces: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    results: tuple[MethodResult, ...]
    agreement: Agreement
    notes: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    version: str = ""

    def __repr__(self) -> str:
        said = "match" if self.verification.match else "no match"
        return f"Comparison({said}, score {self.verification.score:.3f}, {len(self.results)} methods)"

    def _repr_png_(self) -> bytes:
        from xfr_plugin.explanation.notebooks import figure_png

        return figure_png(self.figure())

    def figure(self) -> Figure:
        """The grid as a Matplotlib figure."""
        from xfr_plugin.explanation.figures.comparison import comparison_figure  # builds on this module

        return comparison_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        from xfr_plugin.explanation.comparison_document import to_comparison_document

        return to_comparison_document(self).model_dump(mode="json")

    def to_dataframe(self) -> DataFrame:
        """A pandas table, a row for each method, face and region.

        Raises:
            InputError: pandas is not installed.
        """
        from xfr_plugin.explanation.notebooks import comparison_frame

        return comparison_frame(self)

    @property
    def explanations(self) -> dict[str, Explanation]:
        """Explanations of the methods that did not fail, by name."""
        return {r.method: r.explanation for r in self.results if r.explanation is not None}

    def save(self, folder: str | os.PathLike[str], stem: str = "comparison") -> tuple[Path, Path]:
        """Write `<stem>.png`, the grid, and `<stem>.json`, everything; each whole or not at all.

        Returns:
            The paths of the picture and of the document.

        Raises:
            ResultError: the folder cannot be written to.
        """
        from xfr_plugin.explanation.comparison_document import (
            write_comparison,  # report builds on this module
        )

        return write_comparison(self, Path(folder), stem)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Comparison:
        """Read the document of a saved comparison.

        Raises:
            ResultError: missing, damaged, or not a document of ours.
        """
        from xfr_plugin.explanation.comparison_document import read_comparison

        return read_comparison(Path(path))


@own_modes()
def compare(
    photo_a: PhotoSource,
    photo_b: PhotoSource,
    *,
    methods: MethodChoice = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    threshold: float | None = None,
    fmr: float | None = None,
    detector: Detector | None = None,
    alignment: Alignment = "auto",
    faces: tuple[int, int] = (0, 0),
    regions: RegionMap | None = None,
    smoothing: float = SMOOTHING,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    check: bool = False,
) -> Comparison:
    """Explain one pair by many methods.

    Faces are found and the decision is made once. A method that fails on this recognizer (for want of a decoder,
    say) is reported in its result, and the others go on. Agreement is measured inside the face only, on maps blurred
    to a common scale: unblurred, a noisy gradient map and a coarse one cannot agree even if both point at the mouth.
    Neighbouring pixels of a blurred map are alike, so the correlations come without a test of significance.

    Args:
        photo_a, photo_b, recognizer, threshold, fmr, detector, alignment, faces, device: see `verify`.
        methods: names, `all`, or those of `QUICK_METHODS` that can explain the recognizer if left out.
        options: options by name of the method, then by name of the option.
        regions: see `explain`.
        smoothing: σ of the blur before maps are correlated, as a share of the face's height; 0 for none.
        progress: called before each method, see `Progress`; `ProgressBar` shows it.
        check: also test each explanation, see `explain`; neither its time nor its memory are the method's.

    Raises:
        UnknownNameError: a method or option does not exist; for other errors, and warnings, see `verify`.
    """
    checked_smoothing(smoothing)
    chosen, given = chosen_methods(methods), dict(options or {})
    check_options(chosen, given)
    timings: dict[str, float] = {}
    with timed(timings, "load"):
        model = open_recognizer(recognizer, device)
        if methods is None:
            chosen = tuple(method for method in chosen if method.fits(model.gives))
        limit = choose_threshold(model, threshold, fmr)
    pair = open_pair(model, (photo_a, photo_b), faces, detector, alignment, limit, timings)
    with timed(timings, "regions"):
        (pair,) = find_pair_regions([pair])
    with timed(timings, "warm_up"):
        _warm_up(model, pair)
    labels = regions or template_regions(model.input_size)
    effects = None
    if check:
        with timed(timings, "check"):
            effects = measure_pair(model, pair)
    results = []
    with fingerprints_kept():
        for number, method in enumerate(chosen, start=1):
            if progress is not None:
                progress(method.name, number, len(chosen))
            results.append(_result(method, given.get(method.name, {}), model, pair, regions, effects))
    explained = [result.explanation for result in results if result.explanation is not None]
    return Comparison(
        verification=pair.verification,
        faces=pair.pixels,
        results=tuple(results),
        agreement=rank_agreement(explained, labels, smoothing),
        notes=pair.notes(),
        timings=timings,
        version=__version__,
    )


def chosen_methods(choice: MethodChoice) -> tuple[Method, ...]:
    """Methods of a choice, each once, in its order.

    Raises:
        UnknownNameError: a method that does not exist.
        InputError: none is named.
    """
    if choice is None:
        return tuple(METHODS[name] for name in QUICK_METHODS)
    if choice == "all":
        return tuple(METHODS.values())
    names = (choice,) if isinstance(choice, str) else tuple(dict.fromkeys(choice))
    if not names:
        raise InputError("name at least one method, or 'all'")
    return tuple(get_method(name) for name in names)


def rank_agreement(explanations: Iterable[Explanation], regions: RegionMap, smoothing: float) -> Agreement:
    """Spearman's rank correlation of maps over the pixels of the face; see `compare`."""
    listed = list(explanations)
    return Agreement(
        methods=tuple(explanation.method for explanation in listed),
        probe=map_correlations([e.probe.saliency for e in listed], regions.face, smoothing),
        reference=map_correlations([e.reference.saliency for e in listed], regions.face, smoothing),
        smoothing=smoothing,
    )


def check_options(methods: Iterable[Method], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse options of methods that are not asked for, and misspelt ones, before anything is computed.

    Raises:
        UnknownNameError: there is one.
    """
    asked = [method.name for method in methods]
    for name, given in options.items():
        if name not in asked:
            raise UnknownNameError.of("method among those asked for, with options,", name, asked)
        for option in given:
            if option not in get_method(name).options():
                raise UnknownNameError.of(f"option of {name}", option, get_method(name).options())


def _warm_up(model: Recognizer, pair: FacePair) -> None:
    """Pass through the network once each way, or the first method would pay for what all methods need."""
    if model.gives != "gradient":
        return
    with suppress(RuntimeError):  # a network without gradients can still be a black box
        embeddings, pullback = pull_back(model, pair.images)
        pullback(torch.ones_like(embeddings)[None])


def _result(
    method: Method,
    options: Mapping[str, Any],
    model: Recognizer,
    pair: FacePair,
    regions: RegionMap | None,
    effects: PairEffects | None,
) -> MethodResult:
    """Run one method; whatever goes wrong is its own affair."""
    start = time.perf_counter()
    explanation, error = None, None
    with measured_peak(model.device) as peak:
        try:
            attribution = method.build(model, pair.verification.threshold, **options)
            (maps,) = attribute_pairs(attribution, [pair], errors=True)
            seconds = time.perf_counter() - start
            explanation = explanation_of(pair, maps, method, options, regions, {"explain": seconds})
        except Exception as problem:  # one method must not take the others' answers along
            seconds, error = time.perf_counter() - start, in_one_line(problem)
    if effects is not None and explanation is not None:
        explanation = replace(explanation, faithfulness=check_pair(model, pair, maps, effects))
    return MethodResult(method.name, explanation, seconds, peak.extra, error)
