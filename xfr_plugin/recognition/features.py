"""What a recognizer computes of faces on the way: its feature maps, beside its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.base.replicas import in_evaluation, replica
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.outputs import check_units
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["FaceFeatures", "extract", "layers_by_size", "with_kept_maps"]

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class FaceFeatures:
    """What a recognizer computes of N faces.

    Attributes:
        maps: feature maps N×C×h×w, in the order of the layers.
        embeddings: of unit length, N×D.
    """

    maps: tuple[Tensor, ...]
    embeddings: Tensor

    def __getitem__(self, some: slice | Tensor) -> FaceFeatures:
        return FaceFeatures(tuple(values[some] for values in self.maps), self.embeddings[some])


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
    with torch.no_grad():
        _telling(network, names, note)(images, *arguments)
    if not found:
        raise InputError("this network shows no feature maps of an image: use method 'leave_one_out'")
    return dict(found[size] for size in sorted(found, reverse=True))


def extract(function: nn.Module, images: Tensor, layers: Sequence[str], *arguments: Any) -> FaceFeatures:
    """Embed faces, and keep the feature maps of some layers, in one pass without gradients.

    Args:
        function: a `Recognizer`, or another module from images to embeddings.
        images: N×C×H×W.
        layers: names of modules of its network, in the order of the maps.
        arguments: further arguments of the function.

    Raises:
        InputError: the network has no such layer, or does not use it; and what `Recognizer.embed` raises.
    """
    if isinstance(function, Recognizer):
        function.check(images)
    reader, kept = with_kept_maps(function, layers)
    with torch.no_grad():
        embeddings = functional.normalize(reader(images, *arguments), dim=1)
    missing = [name for name in layers if name not in kept]
    if missing:
        raise InputError(f"the network did not use {missing[0]!r}, which amortised evidence reads")
    if isinstance(function, Recognizer):
        check_units(embeddings, function.name)
    return FaceFeatures(tuple(kept[name] for name in layers), embeddings)


def with_kept_maps(function: _Module, layers: Sequence[str]) -> tuple[_Module, Mapping[str, Tensor]]:
    """A replica of a module, and what these layers give in its last pass, by name; see `base.replicas`.

    The module itself gets no hooks, so that other threads can use it meanwhile.

    Raises:
        InputError: the network has no such layer.
    """
    kept: dict[str, Tensor] = {}
    return _telling(function, layers, kept.__setitem__), kept


def _telling(function: _Module, layers: Sequence[str], note: Callable[[str, Any], None]) -> _Module:
    """A copy of a module that tells of every output of these layers; the module itself if there are none."""
    if not layers:
        return in_evaluation(function)
    twin = replica(function)
    network = twin.network if isinstance(twin, Recognizer) else twin
    known = dict(network.named_modules())
    for name in layers:
        if name not in known:
            raise InputError(
                f"the network has no module {name!r}, whose feature maps amortised evidence reads"
            )
        known[name].register_forward_hook(lambda _module, _input, output, name=name: note(name, output))
    return twin
