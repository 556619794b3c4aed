"""Protocols by name: what `xfr evaluate --protocols` can run."""

from __future__ import annotations

from collections.abc import Callable

from xfr_plugin.evaluation.protocol import Protocol
from xfr_plugin.evaluation.protocols.deletion import Deletion
from xfr_plugin.evaluation.protocols.insertion import Insertion

__all__ = ["PROTOCOLS"]

PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    "deletion": Deletion,
    "insertion": Insertion,
}
"""Name → maker of the protocol with its default variants."""
