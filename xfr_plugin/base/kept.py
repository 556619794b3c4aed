"""What was made of a network is kept for the calls that follow, as long as it would be made again as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from xfr_plugin.base.replicas import state_of

__all__ = ["kept"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Made:
    """What was made of a network in one state."""

    state: tuple[Any, ...]
    things: dict[Hashable, Any] = field(default_factory=dict)


_KEPT: WeakKeyDictionary[nn.Module, _Made] = WeakKeyDictionary()
_LOCK = threading.Lock()


def kept(network: nn.Module, key: Hashable, make: Callable[[], _T]) -> _T:
    """What `make` gave for this network and key, when the network was in the state that it is in (`state_of`).

    It goes with the network, and so must not refer to it.
    """
    state = state_of(network)
    with _LOCK:
        made = _KEPT.get(network)
        if made is None or made.state != state:
            made = _KEPT[network] = _Made(state)
    if key not in made.things:
        made.things[key] = make()
    found: _T = made.things[key]
    return found
