"""Which composite a network gets, by name."""

from __future__ import annotations

import inspect
import threading
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from zennit.composites import COMPOSITES

from xfr_plugin.base.replicas import state_of
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.lrp import composites
from xfr_plugin.lrp.canonizers import FaceCanonizer
from xfr_plugin.lrp.coverage import coverage
from xfr_plugin.lrp.private import keeping
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["AUTO_COMPOSITE", "composite_for", "kept_composite"]

AUTO_COMPOSITE = "epsilon_plus_flat_face"
"""What `auto` stands for, whatever the network."""

_OURS = composites.__name__


def composite_for(model: nn.Module, name: str = "auto") -> Any:
    """Build a composite for a network.

    A composite with a box rule gets the range of preprocessed pixels of a `Recognizer`. Zennit's own composites get
    our canonizer, without which BatchNorm and additions keep their plain gradient.

    Args:
        model: a recognizer, or any module.
        name: `auto`, or a name in Zennit's `COMPOSITES`, ours included.

    Raises:
        UnknownNameError: no composite of this name.
        InputError: a box rule, and a model that is no `Recognizer`; layers without a rule, by name; a network that
            cannot be canonized.
    """
    if name == "auto":
        name = AUTO_COMPOSITE
    if name not in COMPOSITES:
        raise UnknownNameError.of("composite", name, ["auto", *COMPOSITES])
    cls = COMPOSITES[name]
    options: dict[str, Any] = {} if cls.__module__ == _OURS else {"canonizers": [FaceCanonizer()]}
    if "low" in inspect.signature(cls).parameters:
        options["low"], options["high"] = _pixel_range(model, name)
    composite = cls(**options)
    coverage(model.network if isinstance(model, Recognizer) else model, composite)
    return composite


def kept_composite(model: nn.Module, name: str = "auto") -> Any:
    """The same composite at every call, as long as the network is as it was; see `composite_for` and `keeping`."""
    network = model.network if isinstance(model, Recognizer) else model
    state = state_of(model)
    with _LOCK:
        known = _KEPT.setdefault(network, {})
        if name in known and known[name][0] == state:
            return known[name][1]
    composite = keeping(composite_for(model, name))
    with _LOCK:
        known[name] = (state, composite)
    return composite


_KEPT: WeakKeyDictionary[nn.Module, dict[str, tuple[Any, Any]]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _pixel_range(model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(model, Recognizer):
        raise InputError(
            f"{name} needs the range of pixels: pass a Recognizer, or build the composite yourself"
        )
    return (0 - model.mean) / model.std, (1 - model.mean) / model.std
