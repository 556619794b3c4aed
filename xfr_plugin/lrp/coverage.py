"""Which rule each module of a network gets, and the composite that suits a recognizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn
from zennit.core import Composite, Hook

from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.lrp.canonizers import FaceCanonizer
from xfr_plugin.lrp.composites import EpsilonGammaBoxFace, EpsilonPlusFlatFace, ExcitationBackpropFace
from xfr_plugin.lrp.functional import functions_without_rule
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["CompositeName", "ModuleRule", "composite_for", "coverage"]

CompositeName: TypeAlias = Literal["epsilon_plus_flat", "epsilon_gamma_box", "excitation_backprop"]


@dataclass(frozen=True)
class ModuleRule:
    """A module and its rule.

    Attributes:
        name: path in the network, "" for the network itself.
        module: its class.
        rule: class of the rule; None for a container, whose children have rules.
    """

    name: str
    module: str
    rule: str | None


def coverage(network: nn.Module, composite: Composite) -> list[ModuleRule]:
    """List every module that computes something, and the rule that a composite gives it.

    The composite is applied and removed again. What `FaceCanonizer` adds while it is applied (sums, gates) is listed
    as well. Containers are left out, unless they have a rule.

    Raises:
        InputError: a module, or a function in a forward function, would silently keep its plain gradient.
    """
    try:
        with composite.context(network):
            modules = list(network.named_modules())
            rules = [(name, module, _rule(module)) for name, module in modules]
            functions = functions_without_rule(network)
    except BaseException:
        composite.remove()
        raise
    bare = [
        (name or "the network", module) for name, module, rule in rules if rule is None and _computes(module)
    ]
    if bare or functions:
        _refuse(bare, functions)
    return [ModuleRule(name, type(module).__name__, rule) for name, module, rule in rules if rule is not None]


def composite_for(
    network: nn.Module, composite: CompositeName | Composite = "epsilon_plus_flat", **options: Any
) -> Composite:
    """Make a composite, and check that it covers a network.

    Args:
        network: a recognizer, whose pixel range the box rule then uses, or its network.
        composite: a name, or a composite of your own, which is checked and returned.
        options: arguments of the composite, such as `layer_map`.

    Raises:
        UnknownNameError: no composite of this name.
        InputError: layers without a rule; a network that cannot be canonized.
    """
    built = composite if isinstance(composite, Composite) else _build(network, composite, options)
    coverage(network.network if isinstance(network, Recognizer) else network, built)
    return built


def _build(network: nn.Module, name: str, options: dict[str, Any]) -> Composite:
    classes: dict[str, type[Composite]] = {
        "epsilon_plus_flat": EpsilonPlusFlatFace,
        "epsilon_gamma_box": EpsilonGammaBoxFace,
        "excitation_backprop": ExcitationBackpropFace,
    }
    if name not in classes:
        raise UnknownNameError.of("composite", str(name), classes)
    if name == "epsilon_gamma_box" and isinstance(network, Recognizer):
        low, high = pixel_range(network)
        options = {"low": low, "high": high, **options}
    return classes[name](canonizers=[FaceCanonizer()], **options)


def pixel_range(recognizer: Recognizer) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of a recognizer's preprocessed images, each 1×3×1×1."""
    return -recognizer.mean / recognizer.std, (1 - recognizer.mean) / recognizer.std


def _rule(module: nn.Module) -> str | None:
    """Class of the rule that is registered with a module."""
    hooks = [getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values()]
    return next((type(hook).__name__ for hook in hooks if isinstance(hook, Hook)), None)


def _computes(module: nn.Module) -> bool:
    """Whether a module does something by itself: it has no children, or parameters of its own."""
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return False
    return not module._modules or bool(module._parameters)


def _refuse(bare: list[tuple[str, nn.Module]], functions: list[str]) -> None:
    layers = [f"{name} ({type(module).__name__})" for name, module in bare]
    shown = ", ".join([*layers, *functions][:8])
    more = len(layers) + len(functions) - 8
    raise InputError(
        f"no rule for {shown}{f' and {more} more' if more > 0 else ''}: relevance would silently become their "
        "gradient; give their types a rule with layer_map=[(TheType, the_rule)]"
    )
