"""One architecture of each file in `recognition.networks`: the others there are deeper, of the same blocks."""

from __future__ import annotations

from xfr_plugin.recognition.networks import ARCHITECTURES, Architecture

KINDS: dict[str, Architecture] = {}
for _architecture in ARCHITECTURES.values():
    if _architecture.build.__module__ not in {kind.build.__module__ for kind in KINDS.values()}:
        KINDS[_architecture.name] = _architecture
