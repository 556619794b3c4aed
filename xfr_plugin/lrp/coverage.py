"""Which rule each module of a network gets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from zennit.core import Composite

from xfr_plugin.errors import InputError
from xfr_plugin.lrp.attention import AttentionCanonizer, rule_of
from xfr_plugin.lrp.functional import functions_without_rule
from xfr_plugin.lrp.private import with_rules
from xfr_plugin.lrp.propagation import differentiable
from xfr_plugin.recognition.outputs import Part

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


def coverage(network: nn.Module, composite: Composite, images: Tensor | None = None) -> list[ModuleRule]:
    """List every module that computes something, and the rule that a composite gives it.

    The composite is applied to a replica. What `FaceCanonizer` adds while it is applied (sums, gates) is listed as
    well. Containers are left out, unless they have a rule. With `AttentionCanonizer`, whatever has no rule as a
    module gets those of its functions, which are known when they run.

    Args:
        network: of torch.
        composite: Zennit's or ours.
        images: for the network, N×3×H×W; with `AttentionCanonizer`, a pass of them finds functions without a rule.

    Raises:
        InputError: a module, or a function in a forward function, would silently keep its plain gradient.
    """
    with with_rules(network, composite) as (twin, _):
        rules = [(name, module, rule_of(module)) for name, module in twin.named_modules()]
        if any(isinstance(canonizer, AttentionCanonizer) for canonizer in composite.canonizers):
            if images is not None:
                with differentiable():
                    twin(images.detach().clone().requires_grad_())
            return [ModuleRule(name, type(module).__name__, rule) for name, module, rule in rules if rule]
        functions = functions_without_rule(twin)
    bare = [
        (name or "the network", module) for name, module, rule in rules if rule is None and _computes(module)
    ]
    if bare or functions:
        _refuse(bare, functions)
    return [ModuleRule(name, type(module).__name__, rule) for name, module, rule in rules if rule is not None]


def _computes(module: nn.Module) -> bool:
    """Whether a module does something by itself: it has no children, or parameters of its own."""
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict, Part)):
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
