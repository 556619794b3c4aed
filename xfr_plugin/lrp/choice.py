"""Which composite a network gets, by name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from zennit.composites import COMPOSITES

from xfr_plugin.base.kept import kept
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.lrp import composites
from xfr_plugin.lrp.attention import AttentionCanonizer, is_transformer
from xfr_plugin.lrp.canonizers import FaceCanonizer
from xfr_plugin.lrp.coverage import coverage
from xfr_plugin.lrp.private import keeping
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["composite_for", "composite_name", "kept_composite"]

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
        InputError: a box rule, and a model that is no `Recognizer`; a transformer, and a composite without rules for
            it; layers without a rule, by name; a network that cannot be canonized.
    """
    return _covering(model, _built(model, name))


def _built(model: nn.Module, name: str) -> Any:
    network, name = _network(model), composite_name(model, name)
    if name not in COMPOSITES:
        raise UnknownNameError.of("composite", name, ["auto", *COMPOSITES])
    cls = COMPOSITES[name]
    options: dict[str, Any] = {} if cls.__module__ == _OURS else {"canonizers": [FaceCanonizer()]}
    if "low" in inspect.signature(cls).parameters:
        options["low"], options["high"] = _pixel_range(model, name)
    composite = cls(**options)
    takes_attention = any(isinstance(canonizer, AttentionCanonizer) for canonizer in composite.canonizers)
    if is_transformer(network) and not takes_attention:
        raise InputError(
            f"{name} has no rule for attention and layer normalisation, which this network has: take the composite "
            "'attention_face', as method 'lrp' does by itself"
        )
    return composite


def _covering(model: nn.Module, composite: Any) -> Any:
    coverage(_network(model), composite, _blank(model) if isinstance(model, Recognizer) else None)
    return composite


def composite_name(model: nn.Module, name: str = "auto") -> str:
    """The name of a composite; `auto` is `attention_face` for transformers, and else `epsilon_plus_flat_face`."""
    if name != "auto":
        return name
    return "attention_face" if is_transformer(_network(model)) else "epsilon_plus_flat_face"


def _network(model: nn.Module) -> nn.Module:
    return model.network if isinstance(model, Recognizer) else model


def _blank(recognizer: Recognizer) -> Tensor:
    """A grey face, as the network takes it."""
    like = recognizer.mean
    return recognizer.preprocess(like.new_full((1, 3, *recognizer.input_size), 0.5))


def kept_composite(model: nn.Module, name: str = "auto") -> Any:
    """The same composite at every call, as long as the network is as it was; see `composite_for` and `keeping`."""
    pixels = _scale(model) if isinstance(model, Recognizer) else None

    def made() -> Any:  # kept before it is covered: what that registers serves the first call
        return _covering(model, keeping(_built(model, name)))

    return kept(_network(model), ("composite", name, pixels), made)


def _scale(model: Recognizer) -> tuple[float, ...]:
    return *model.mean.flatten().tolist(), *model.std.flatten().tolist()


def _pixel_range(model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(model, Recognizer):
        raise InputError(
            f"{name} needs the range of pixels: pass a Recognizer, or build the composite yourself"
        )
    return (0 - model.mean) / model.std, (1 - model.mean) / model.std
