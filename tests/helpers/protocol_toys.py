"""What the tests of protocols share: small pairs with regions, and a recognizer that looks at one place only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, PairMaps
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition import Recognizer

SIZE = (24, 20)
WINDOW = (slice(8, 16), slice(6, 14))


class WindowNet(nn.Module):
    """An embedding of the pixels in `WINDOW`; the rest of the face does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 6, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.fc(images[:, :, WINDOW[0], WINDOW[1]].flatten(1))
        return embedding


def window_recognizer() -> Recognizer:
    torch.manual_seed(3)
    return Recognizer(WindowNet(), input_size=SIZE, threshold=0.5, name="window").double()


def window_map() -> NDArray[np.float32]:
    """1 where `WindowNet` looks, 0 elsewhere."""
    values = np.zeros(SIZE, np.float32)
    values[WINDOW] = 1
    return values


def a_pair(genuine: bool = True, name: str = "pair", seed: int = 0) -> EvaluationPair:
    """Two noise faces: nearly the same ones, or two different ones."""
    rng = np.random.default_rng(seed)
    probe = rng.integers(0, 256, (3, *SIZE))
    other = probe + rng.integers(-9, 10, probe.shape) if genuine else rng.integers(0, 256, probe.shape)
    faces = [torch.from_numpy(face.clip(0, 255).astype(np.uint8)) for face in (probe, other)]
    return EvaluationPair(name, faces[0], faces[1], genuine, template_regions(SIZE), template_regions(SIZE))


def random_pair_maps(seed: int = 0) -> PairMaps:
    probe, reference = np.random.default_rng(seed).standard_normal((2, *SIZE)).astype(np.float32)
    return probe, reference


def values_of(
    measurements: Iterable[Measurement], metric: str, variant: str | None = None
) -> dict[float | None, float]:
    """Values of one metric by their place on the curve; of one variant, or of the only one."""
    found = [m for m in measurements if m.metric == metric and variant in (None, m.variant)]
    values = {m.at: m.value for m in found}
    assert len(values) == len(found) > 0, "several variants, or none"
    return values


def value_of(measurements: Iterable[Measurement], metric: str, variant: str | None = None) -> float:
    """The only value of a metric."""
    return values_of(measurements, metric, variant)[None]
