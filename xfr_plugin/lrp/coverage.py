"""Which rule each module of a network gets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from zennit.core import Composite, Hook

from xfr_plugin.errors import InputError
from xfr_plugin.lrp.functional import functions_without_rule
from xfr_plugin.lrp.private import with_rules

__all__ = ["ModuleRule", "coverage"]


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

    The composite is applied to a replica. What `FaceCanonizer` adds while it is applied (sums, gates) is listed as
    well. Containers are left out, unless they have a rule.

    Raises:
        InputError: a module, or a function in a forward function, would silently keep its plain gradient.
    """
    with with_rules(network, composite) as (twin, _):
        rules = [(name, module, _rule(module)) for name, module in twin.named_modules()]
        functions = functions_without_rule(twin)
    bare = [
        (name or "the network", module) for name, module, rule in rules if rule is None and _computes(module)
    ]
    if bare or functions:
        _refuse(bare, functions)
    return [ModuleRule(name, type(module).__name__, rule) for name, module, rule in rules if rule is not None]


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
