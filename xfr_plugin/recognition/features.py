"""What a recognizer computes of faces on the way: its feature maps, beside its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError

__all__ = ["Seen", "layers_by_size", "reading"]


@dataclass(frozen=True)
class Seen:
    """What a recognizer computes of N faces.

    Attributes:
        maps: feature maps N×C×h×w, in the order of the layers.
        embeddings: of unit length, N×D.
    """

    maps: tuple[Tensor, ...]
    embeddings: Tensor

    def __getitem__(self, some: slice | Tensor) -> Seen:
        return Seen(tuple(values[some] for values in self.maps), self.embeddings[some])


def layers_by_size(
    network: nn.Module, images: Tensor, *arguments: Any, largest: int | None = None
) -> dict[str, int]:
    """Of every size of feature map, down to 4 pixels, the last module that gives one.

    Blocks count, and what they consist of does not.

    Args:
        network: to be looked at.
        images: what it is tried on, N×C×H×W.
        arguments: further arguments of its forward pass.
        largest: height of the largest map, in pixels; a quarter of the image's, if left out.

    Returns:
        Channels by name of the module, from the largest map to the smallest.

    Raises:
        InputError: the network has no feature maps of these sizes.
    """
    bound = images.shape[2] // 4 if largest is None else largest
    found: dict[int, tuple[str, int]] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and 4 <= output.shape[2] <= bound:
            found[output.shape[2]] = (name, output.shape[1])

    names = [name for name, _ in network.named_modules() if name and name.count(".") <= 1]
    with _hooked(network, names, note), torch.no_grad():
        network(images, *arguments)
    if not found:
        raise InputError("this network shows no feature maps of an image: use method 'counterfactual'")
    return dict(found[size] for size in sorted(found, reverse=True))


@contextmanager
def reading(network: nn.Module, layers: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Keep what these modules give in the next forward pass, by name; the hooks are gone afterwards.

    Raises:
        InputError: the network has no such module.
    """
    known = {name for name, _ in network.named_modules()}
    for name in layers:
        if name not in known:
            raise InputError(
                f"the network has no module {name!r}, whose feature maps amortised evidence reads"
            )
    kept: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        kept[name] = output

    with _hooked(network, layers, keep):
        yield kept


@contextmanager
def _hooked(network: nn.Module, names: Sequence[str], note: Callable[[str, Any], None]) -> Iterator[None]:
    """Tell of every output of these modules, as long as it lasts."""
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _input, output, name=name: note(name, output)
        )
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
