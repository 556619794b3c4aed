"""What was run, in a paragraph: over all tables of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from xfr_plugin.base.text import code_span
from xfr_plugin.evaluation.chance_baselines import beside
from xfr_plugin.evaluation.pairs import PairEntry
from xfr_plugin.evaluation.results import Results

__all__ = ["what_was_run"]


def what_was_run(results: Results) -> str:
    """Recognizer, versions, pairs, and methods that were not judged on all of them."""
    run = results.manifest
    pairs, planted, covered, photographs = (
        _known(results, entries) for entries in (run.pairs, run.plantings, run.covered, run.photographs)
    )
    genuine = sum(bool(results.facts[name]["genuine"]) for name in pairs)
    worn = f", {len(covered)} pairs with something worn" if covered else ""
    worn += f", {len(photographs)} photographs to draw on" if photographs else ""
    text = (
        f"{code_span(str(run.recognizer['name']))}, threshold {run.threshold:.4g}; seed {run.seed}; "
        f"regions from the {run.regions}; xfr-plugin {run.versions['xfr-plugin']}, torch {run.versions['torch']}. "
        f"{len(pairs)} pairs ({genuine} genuine), {len(planted)} planted pairs{worn}. Means over pairs with 95 % "
        "bootstrap intervals, in which pairs of one probe's person are drawn together. Best in bold, chance last; "
        "intervals of neighbours that overlap mean that their order is not known."
    )
    return text + _fewer(results)


def _known(results: Results, entries: Iterable[PairEntry]) -> list[str]:
    return [entry.name for entry in entries if entry.name in results.facts]


def _fewer(results: Results) -> str:
    """Methods that were judged less often than others: added later to a part of the run, or failed on some pairs."""
    judged = Counter(
        method
        for method, protocol, _ in {(r.method, r.protocol, r.pair) for r in results.records}
        if protocol in results.protocols and not beside(method)
    )
    most = max(judged.values(), default=0)
    fewer = ", ".join(
        f"{code_span(name)} ({number} of {most} judgements)"
        for name, number in judged.items()
        if number < most
    )
    return f" **Not judged on all of it, and so not to be compared: {fewer}.**" if fewer else ""
