"""Files of the small networks that find faces and their landmarks: weights in 16 bits, and a card."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from torch import nn

from xfr_plugin.base.randomness import seeded
from xfr_plugin.base.weights import halved, load_halved_into, read_weights, write_weights
from xfr_plugin.errors import WeightsError

__all__ = ["Kind", "read_network", "write_network"]

Kind = Literal["aligner", "finder"]
Network = TypeVar("Network", bound=nn.Module)

_FORMAT = 1


def read_network(
    path: str | os.PathLike[str], kind: Kind, build: Callable[[int], Network]
) -> tuple[Network, dict[str, Any]]:
    """A network and its card; `build` makes it from its width.

    Raises:
        WeightsError: the file is missing, damaged, or of another kind.
        LayoutError: its weights do not fit the network.
    """
    name = os.path.basename(path)
    state, metadata = read_weights(path)
    card = metadata.get(kind)
    if not isinstance(card, dict) or card.get("format") != _FORMAT:
        raise WeightsError(f"{name} is no {kind} that this version reads: train one with `xfr train {kind}`")
    width = card.get("width")
    if not isinstance(width, int) or not 4 <= width <= 64:
        raise WeightsError(f"{name} names an impossible width ({width!r}): get the file again")
    with seeded(0):  # networks are born with random weights
        network = build(width)
    load_halved_into(network, state, name)
    return network, card


def write_network(
    network: nn.Module, path: str | os.PathLike[str], kind: Kind, card: Mapping[str, Any]
) -> None:
    """Write a network with its card, whole or not at all."""
    head = {"format": _FORMAT, "architecture": type(network).__name__, "width": network.width}
    write_weights(path, halved(network, lambda _name, _value: True), {kind: {**head, **card}})
