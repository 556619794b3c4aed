"""The gate between attribution methods and evidence: maps of nothing do not pass as reasons.

A map becomes evidence if it is finite, if a gradient existed where its method differentiates, and if it lies above
rounding. Captum's users, who call `attribute` themselves, see maps as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xfr_plugin.attr._base.prepared import Explained, Prepared
from xfr_plugin.attr.registry import METHODS
from xfr_plugin.errors import ExplanationError
from xfr_plugin.recognition import Recognizer

if TYPE_CHECKING:  # Captum is slow to import
    from xfr_plugin.attr._base.pair import PairAttribution

__all__ = ["explained", "rounding_limit"]

_HALF = (torch.float16, torch.bfloat16)


def explained(
    attribution: PairAttribution, probes: Prepared, references: Prepared, *, errors: bool = False
) -> Explained:
    """Attribute the scores of pairs, see `PairAttribution.explain_prepared`, and let through what is evidence.

    A map of rounding errors becomes a map of zeros: there is nothing to explain, as where a photo is compared with
    itself.

    Raises:
        ExplanationError: a map is not finite, no gradient reaches the pixels, or the network's type is too narrow.
        InputError: the method cannot explain such pairs.
    """
    try:
        found = attribution.explain_prepared(probes, references, errors=errors)
    except (RuntimeError, NotImplementedError) as error:
        reason = _obstacle(attribution, probes, references)
        if reason is None:
            raise
        raise ExplanationError(f"{_name(attribution)}: {reason}") from error
    sides = [_checked(attribution, maps) for maps in (found.probes, found.references)]
    if any(maps is not None and not maps.any() for maps in sides) and _differentiates(attribution):
        reason = _cut_gradient(attribution, probes, references)
        if reason is not None:
            raise ExplanationError(f"{_name(attribution)}: {reason}")
    return Explained(sides[0], sides[1], found.errors)


def rounding_limit(dtype: torch.dtype) -> float:
    """Evidence of a face, in units of the score, that rounding alone can make.

    The cosine of two unit vectors is known to ε, so that faces whose score is 1 within rounding may be an angle of
    √(2ε) apart, and the score's gradient is proportional to that angle.
    """
    return float((2 * torch.finfo(dtype).eps) ** 0.5)


def _checked(attribution: PairAttribution, maps: Tensor | None) -> Tensor | None:
    """Maps N×C×H×W of one side, zero where they hold no more than rounding."""
    if maps is None:
        return None
    if not bool(maps.isfinite().all()):
        narrow = _narrow(attribution)
        advice = f": {narrow}" if narrow else ": check the network's weights, or choose another method"
        raise ExplanationError(f"{_name(attribution)} made a map of numbers that are not finite{advice}")
    totals = maps.sum(dim=1).abs().sum(dim=(1, 2), dtype=torch.float64)
    above = totals > rounding_limit(maps.dtype)
    return maps if bool(above.all()) else maps * above.view(-1, 1, 1, 1)


def _obstacle(attribution: PairAttribution, probes: Prepared, references: Prepared) -> str | None:
    """Why a method may have failed; None for another reason."""
    if _differentiates(attribution):
        cut = _cut_gradient(attribution, probes, references)
        if cut is not None:
            return cut
    return _narrow(attribution)


def _narrow(attribution: PairAttribution) -> str | None:
    network = attribution.forward_func.network if isinstance(attribution.forward_func, Recognizer) else None
    types = {weight.dtype for weight in network.parameters()} if network is not None else set()
    narrow = next((dtype for dtype in _HALF if dtype in types), None)
    if narrow is None:
        return None
    word = str(narrow).removeprefix("torch.")
    return f"the network computes in {word}: convert it with .float(), or choose another method"


def _cut_gradient(attribution: PairAttribution, probes: Prepared, references: Prepared) -> str | None:
    """Whether the embedding of a face does not depend on its pixels, as far as gradients know."""
    images = probes.images if probes.images is not None else references.images
    if images is None:
        return None
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images[:1].detach().clone().requires_grad_()
        unit = attribution.forward_func(leaf)
        weights = torch.linspace(-1, 1, unit.shape[1]).to(
            unit
        )  # the length of a unit embedding never changes
        gradient = None
        if unit.requires_grad:
            (gradient,) = torch.autograd.grad((unit * weights).sum(), leaf, allow_unused=True)
    if gradient is not None and bool(gradient.any()):
        return None
    return (
        "no gradient reaches the pixels (the network detaches, rounds or is constant there): "
        "choose a method that needs scores only, see `xfr methods`"
    )


def _differentiates(attribution: PairAttribution) -> bool:
    needs = {method.cls: method.needs for method in METHODS.values()}.get(type(attribution), "gradient")
    return needs in ("gradient", "composite")


def _name(attribution: PairAttribution) -> str:
    names = {method.cls: method.name for method in METHODS.values()}
    return names.get(type(attribution), type(attribution).__name__)
