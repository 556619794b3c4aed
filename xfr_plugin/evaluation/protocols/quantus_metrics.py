"""Metrics of Quantus (GPL-3), for those who have installed it: nothing else of this package imports it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from torch import Tensor, nn

from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, MapProtocol, Measurement, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import chosen, generator_for

__all__ = ["QuantusMetric", "QuantusMetrics"]

_DRAWS = threading.Lock()

QuantusMetric: TypeAlias = Literal["sparseness", "complexity", "faithfulness_correlation"]
"""`sparseness`: Gini index of the map (Chalasani et al., 2020), 0 … 1. `complexity`: entropy of the map's shares
(Bhatt et al., 2020). `faithfulness_correlation`: Pearson's, of the sum of the map over random pixels and the fall of
the score when they are set to 0, the colours of a pixel drawn one by one (Bhatt et al., 2020)."""


class QuantusMetrics(MapProtocol):
    """Metrics of the probe's map, computed by Quantus (Hedström et al., JMLR 2023, arXiv 2202.06861).

    Quantus judges classifiers; it is given the score, the cosine with the reference's embedding, as the only class.
    Maps are judged as they are, without Quantus' normalisation; magnitudes for `sparseness` and `complexity`. Of the
    three only the correlation is ranked: a sparse map is not a better one. Not among `PROTOCOLS`, since it needs
    Quantus; `pip install quantus`, which is GPL-3.

    2 + `runs` forwards with `faithfulness_correlation`, else none.

    Args:
        metrics: see `QuantusMetric`.
        runs: random subsets.
        subset: their size, as a share of the values of the face.

    Raises:
        InputError: Quantus is not installed, or an option out of range.
    """

    name = "quantus"
    title = "Quantus"
    higher_is_better: ClassVar[dict[str, bool]] = {"faithfulness_correlation": True}
    sides: Literal["both", "probe"] = "probe"
    options = ("metrics", "runs", "subset")

    def __init__(
        self,
        *,
        metrics: Sequence[QuantusMetric] = get_args(QuantusMetric),
        runs: int = 20,
        subset: float = 0.1,
    ) -> None:
        self.metrics = chosen("metrics", metrics, get_args(QuantusMetric))
        if runs < 2 or not 0 < subset < 1:
            raise InputError(f"runs ≥ 2 and subset in 0 … 1 are needed, got {runs} and {subset:g}")
        self.runs, self.subset = runs, float(subset)
        self._quantus = _import_quantus()

    def settings(self) -> dict[str, object]:
        """All options, and the version of Quantus."""
        return {**super().settings(), "quantus": self._quantus.__version__}

    def judge(self, pair: EvaluationPair, maps: PairMaps, setting: Setting) -> Iterator[Measurement]:
        """Let Quantus judge."""
        probe, reference = pair.images(setting.recognizer)
        model = _Score(setting, reference) if "faithfulness_correlation" in self.metrics else nn.Identity()
        drawn = int(generator_for(setting, pair, self.name).integers(2**32))
        with _global_draws(drawn):
            found = [
                self._metric(metric, maps[0].size)(
                    model=model.eval(),
                    x_batch=probe.cpu().numpy(),
                    y_batch=np.zeros(1, dtype=int),
                    a_batch=maps[0][None, None].astype(np.float64),
                    softmax=False,
                    device=str(probe.device),
                )
                for metric in self.metrics
            ]
        for metric, (value,) in zip(self.metrics, found, strict=True):
            yield Measurement("", metric, float(value))

    def _metric(self, metric: QuantusMetric, pixels: int) -> Any:
        options: dict[str, Any] = {"disable_warnings": True, "normalise": False, "return_aggregate": False}
        if metric == "sparseness":
            return self._quantus.Sparseness(**options)
        if metric == "complexity":
            return self._quantus.Complexity(**options)
        size = max(1, round(self.subset * 3 * pixels))
        return self._quantus.FaithfulnessCorrelation(
            nr_runs=self.runs, subset_size=size, perturb_baseline=0.0, **options
        )


@contextmanager
def _global_draws(seed: int) -> Iterator[None]:
    """Seed numpy's global state, from which Quantus draws, for one thread at a time."""
    with _DRAWS:
        before = np.random.get_state()  # noqa: NPY002  # see above
        try:
            np.random.seed(seed)  # noqa: NPY002  # see above
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002  # see above


class _Score(nn.Module):
    """The score of images N×3×H×W with a reference, N×1."""

    def __init__(self, setting: Setting, reference: Tensor) -> None:
        super().__init__()
        self._setting, self._partner = setting, setting.embed(reference)

    def forward(self, images: Tensor) -> Tensor:
        rows = self._setting.embed(images.to(self._setting.recognizer.dtype))
        return self._setting.compare(rows, self._partner)[:, None]


def _import_quantus() -> Any:
    try:
        return importlib.import_module("quantus")
    except ImportError as error:
        raise InputError(f"Quantus cannot be used ({error}): pip install quantus (it is GPL-3)") from error
