"""Protocols by name: what `xfr evaluate --protocols` can run."""

from __future__ import annotations

from collections.abc import Callable

from xfr_plugin.evaluation.protocol import Protocol
from xfr_plugin.evaluation.protocols.deletion import Deletion
from xfr_plugin.evaluation.protocols.hiding import Hiding
from xfr_plugin.evaluation.protocols.infidelity import Infidelity
from xfr_plugin.evaluation.protocols.insertion import Insertion
from xfr_plugin.evaluation.protocols.natural import Natural
from xfr_plugin.evaluation.protocols.occluders import Occluders
from xfr_plugin.evaluation.protocols.paired import Paired
from xfr_plugin.evaluation.protocols.patch_replacement import PatchReplacement
from xfr_plugin.evaluation.protocols.photographs import Photographs
from xfr_plugin.evaluation.protocols.randomisation import Randomisation
from xfr_plugin.evaluation.protocols.sensitivity import Sensitivity
from xfr_plugin.evaluation.protocols.stability import Stability
from xfr_plugin.evaluation.protocols.symmetry import Symmetry
from xfr_plugin.evaluation.protocols.worn import Worn

__all__ = ["PROTOCOLS"]

PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    "deletion": Deletion,
    "insertion": Insertion,
    "hiding": Hiding,
    "infidelity": Infidelity,
    "natural": Natural,
    "occluders": Occluders,
    "paired": Paired,
    "patch_replacement": PatchReplacement,
    "photographs": Photographs,
    "randomisation": Randomisation,
    "sensitivity": Sensitivity,
    "stability": Stability,
    "symmetry": Symmetry,
    "worn": Worn,
}
"""Name → maker of the protocol with its default variants."""
