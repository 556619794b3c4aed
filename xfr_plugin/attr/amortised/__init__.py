"""Amortised evidence: its attribution, its network, and its model files."""

from xfr_plugin.attr.amortised.attribution import Amortised

__all__ = ["Amortised"]
