"""What any method must beat: maps that know nothing of the pair. As methods they go through a run as any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xfr_plugin.attr._base.pair import Pair, PairAttribution
from xfr_plugin.attr.registry import Method
from xfr_plugin.base.registry import Registry
from xfr_plugin.errors import UnknownNameError
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = [
    "CHANCE_BASELINES",
    "REFERENCES",
    "CentrePrior",
    "ConfiguredMethod",
    "RandomMaps",
    "beside",
]


def _baseline(cls: type[PairAttribution], *, name: str, title: str) -> Method:
    return Method(
        name=name,
        title=title,
        cls=cls,
        paper="a chance baseline",
        year=0,
        needs="scores",
        cost="none",
        relative_cost=0,
        caveat="it knows nothing of the pair",
    )


CHANCE_BASELINES: Registry[Method] = Registry("chance baseline", __name__)
"""Name → chance baseline."""

chance_baseline = CHANCE_BASELINES.describing(_baseline)
"""Decorator of classes that know nothing of the pair: they are judged beside the methods, and are none."""


@chance_baseline(name="chance_random", title="Chance: random")
class RandomMaps(PairAttribution):
    """White noise, drawn by the seed and the pixels of the face.

    Args:
        forward_func: see `PairAttribution`; never called.
        threshold: see `PairAttribution`.
        seed: of the noise.
    """

    def __init__(
        self, forward_func: Callable[..., Tensor], threshold: float | None = None, *, seed: int = 0
    ) -> None:
        super().__init__(forward_func, threshold)
        self.seed = seed

    def _attribute_pair(self, pair: Pair) -> Tensor:
        maps = [self._noise(image) for image in pair.images]
        return torch.stack(maps).to(pair.images)[:, None].expand_as(pair.images) / pair.images.shape[1]

    def _noise(self, image: Tensor) -> Tensor:
        content = image.detach().float().cpu().numpy().tobytes()
        digest = hashlib.sha256(content + str(self.seed).encode()).digest()
        noise = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(image.shape[1:])
        return torch.from_numpy(noise)


@chance_baseline(name="chance_centre", title="Chance: centre prior")
class CentrePrior(PairAttribution):
    """A Gaussian bump in the middle of the crop, σ a quarter of each side.

    It has no signs of its own; a run gives it those of the evidence that a protocol asks for.
    """

    def _attribute_pair(self, pair: Pair) -> Tensor:
        bump = _bump(pair.images.shape[2:]).to(pair.images)
        return bump.expand_as(pair.images) / pair.images.shape[1]


REFERENCES = {
    "ceiling": "Noise ceiling",
    "constant": "Constant answer",
    "area": "Area of the region",
}
"""Rows that are no maps, of protocols that measure the truth: name → title."""


def beside(name: str) -> str | None:
    """Title of a row beside the methods, a chance baseline or a reference; None of a method."""
    if name in CHANCE_BASELINES:
        return CHANCE_BASELINES[name].title
    return REFERENCES.get(name)


def _bump(size: torch.Size) -> Tensor:
    """A Gaussian in the middle of a crop of `size` (height, width), σ a quarter of each side."""
    rows, columns = (torch.exp(-(((torch.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * 0.25**2)) for n in size)
    return torch.outer(rows, columns)


@dataclass(frozen=True)
class ConfiguredMethod(Method):
    """A method with options that are not its defaults.

    Attributes:
        given: these options.
    """

    given: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, method: Method, given: dict[str, Any]) -> ConfiguredMethod:
        """Give a method options.

        Raises:
            UnknownNameError: it has no such option.
        """
        for option in given:
            if option not in method.options():
                raise UnknownNameError.of(f"option of {method.name}", option, method.options())
        return cls(**vars(method), given=given)

    def build(self, recognizer: Recognizer, threshold: float, **options: Any) -> PairAttribution:
        """See `Method`; `options` go before those given."""
        return super().build(recognizer, threshold, **{**self.given, **options})
