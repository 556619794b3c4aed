"""Protocols by name: what `xfr evaluate --protocols` can run."""

from __future__ import annotations

from collections.abc import Callable

from xfr_plugin.evaluation.protocol import Protocol

__all__ = ["PROTOCOLS"]

PROTOCOLS: dict[str, Callable[[], Protocol]] = {}
"""Name → maker of the protocol with its default variants."""
