"""What a network's class or builder says about its architecture, by a decorator in its own file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from torch import nn

from xfr_plugin.base.registry import Registry

__all__ = ["ARCHITECTURES", "Architecture", "architecture"]


@dataclass(frozen=True)
class Architecture:
    """A network architecture of a face recognizer; called, it builds one with untrained weights.

    Attributes:
        build: the network's class, or a function that builds it.
        name: key in `ARCHITECTURES`.
        paper: where it was published.
        layout: whose published state dicts have its keys and shapes, with their licence where there is one.
        input_size: height and width of the aligned face, in pixels, that published weights expect.
        mean: subtracted from the image in [0, 1] by them, for each channel …
        std: … before it is divided by this.
    """

    build: Callable[[], nn.Module]
    _: KW_ONLY
    name: str
    paper: str
    layout: str
    input_size: tuple[int, int] = (112, 112)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self) -> nn.Module:
        """Build the network, with untrained weights."""
        return self.build()


ARCHITECTURES: Registry[Architecture] = Registry("architecture", "xfr_plugin.recognition.networks")
"""Architecture name → architecture. The modules of this package are imported when it is first read."""

architecture = ARCHITECTURES.describing(Architecture)
"""Decorator of networks that puts them into `ARCHITECTURES`; its arguments are the attributes of `Architecture`."""
