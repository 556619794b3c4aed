"""Counts what costs time: passes through the recognizer, outlines, fingerprints, predictions of the fast form."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from xfr_plugin.attr.amortised.network import EvidenceNetwork
from xfr_plugin.faces.outlines import Outliner
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition import fingerprint as fingerprints

__all__ = ["counted"]


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What happens: `passes` and `images` through recognizers, `outlines`, `fingerprints`, `predicted`."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str, *what: str) -> None:
        original = getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            counts[what[0]] += 1
            if len(what) > 1:
                counts[what[1]] += len(arguments[1])
            return original(*arguments)

        monkeypatch.setattr(owner, name, counting)

    count(Recognizer, "features", "passes", "images")
    count(Outliner, "sketch", "outlines")
    count(EvidenceNetwork, "forward", "predicted")
    hashes = SimpleNamespace(sha256=fingerprints.hashlib.sha256)
    monkeypatch.setattr(fingerprints, "hashlib", hashes)
    count(hashes, "sha256", "fingerprints")
    return counts
