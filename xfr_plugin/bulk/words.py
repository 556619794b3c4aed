"""What a summary says in sentences, on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xfr_plugin.base.text import counted
from xfr_plugin.explanation.words import component_name

if TYPE_CHECKING:
    from xfr_plugin.bulk.store import BatchManifest
    from xfr_plugin.bulk.summary import Decided, Summary

__all__ = ["LEGEND", "decided_in_words", "explained_in_words", "region_in_words"]

LEGEND = (
    "A region's net evidence is what in both faces argues for a match less what argues against it, in percent of all "
    "evidence in the two faces; positive argues for a match. Ranges and whiskers are 95 % intervals of the mean; of "
    "fewer than five people there is none. Left and right are the subject's."
)
"""How tables and plots are read."""

_VERDICTS = ("supported", "weak", "contradicted")
_OFTEN = 0.1
"""A note on a smaller share of the pairs is theirs, and not the run's."""


def decided_in_words(decided: Decided, manifest: BatchManifest) -> list[str]:
    """How all pairs were decided, explained or not."""
    told = (
        f"{counted(decided.pairs, 'pair')} by {manifest.recognizer}, threshold {manifest.threshold:.4f} "
        f"({manifest.threshold_source}): {decided.matches:,} match, {decided.non_matches:,} do not"
        f"{f', without a score {decided.unscored:,}' if decided.unscored else ''}."
    )
    kinds = {
        "one person": (decided.genuine, decided.false_non_matches, "do not match"),
        "two people": (decided.impostor, decided.false_matches, "match"),
    }
    errors = [
        f"Of {counted(pairs, 'pair')} of {who} {wrong:,} {what} ({100 * wrong / pairs:.2g} %)."
        for who, (pairs, wrong, what) in kinds.items()
        if pairs
    ]
    return [told, " ".join(errors)] if errors else [told]


def explained_in_words(summary: Summary, method: str) -> list[str]:
    """How many pairs a method explained, how the checks went, and what is noted of most of them."""
    manifest = summary.results.manifest
    explained = next(row.pairs for row in summary.regions if (row.method, row.by) == (method, "all"))
    told = f"{method}: {counted(explained, 'pair')} explained ({'; '.join(manifest.select)})"
    verdicts = summary.verdicts[method]
    if verdicts:
        told += f"; checked: {', '.join(f'{verdicts.get(word, 0):,} {word}' for word in _VERDICTS)}"
    often = sorted(
        (-count, note) for note, count in summary.notes[method].items() if count >= _OFTEN * explained
    )
    return [f"{told}.", *(f"Noted of {-count:,} of them: {note}." for count, note in often)]


def region_in_words(shares: Mapping[str, float]) -> str:
    """Which region argues most in a pair."""
    region = max(shares, key=lambda name: abs(shares[name]))
    side = "for" if shares[region] > 0 else "against"
    return f"{component_name(region)} argues most, {side} a match, with {abs(shares[region]):.0f} % of the evidence"
