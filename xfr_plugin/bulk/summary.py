"""What many explanations say together: which regions argue, by decision, by error, by a column of the user's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import write_text
from xfr_plugin.bulk.pairs import arrow
from xfr_plugin.bulk.results import BatchResults
from xfr_plugin.bulk.store import KINDS
from xfr_plugin.bulk.words import region_in_words
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.explanation.pipeline import SIDES

__all__ = ["Decided", "RegionRow", "Summary", "TellingPair", "summarise"]

_FEWEST_PEOPLE = 5
_MOST_GROUPS = 50
_EMPTY = "(empty)"

Indices = NDArray[np.int64]


class RegionRow(Document):
    """What a region argues, on average over a group of pairs.

    Attributes:
        method: that explained them.
        by: what the group is of: `all`, `decision`, `error`, or the name of a column of `BatchResults.pairs`.
        group: which one; `(empty)` where the column says nothing.
        region: name.
        pairs: in the group.
        share: mean net evidence, in percent of all evidence in the pair's two faces; positive argues for a match.
        low: 95 % interval of the mean; pairs that share a person are no independent samples. People are told apart as
            far as genuine pairs tell; else each photo is one. None where the group shows fewer than five.
        high: its upper end.
    """

    method: str
    by: str
    group: str
    region: str
    pairs: int
    share: float
    low: float | None
    high: float | None


class Decided(Document):
    """How all pairs of a run were decided, explained or not.

    Attributes:
        pairs: all of them.
        matches: that match.
        non_matches: that do not.
        unscored: that have no score.
        genuine: with a score, and known to show one person.
        impostor: with a score, and known to show two.
        false_non_matches: genuine ones that do not match.
        false_matches: impostor ones that match.
    """

    pairs: int
    matches: int
    non_matches: int
    unscored: int
    genuine: int
    impostor: int
    false_non_matches: int
    false_matches: int


class TellingPair(Document):
    """A pair that is worth a look, and why.

    Attributes:
        pair: its number.
        probe: name of the photo.
        reference: name of the other.
        method: whose explanation it is.
        score: cosine.
        margin: score minus threshold.
        why: in words.
    """

    pair: int
    probe: str
    reference: str
    method: str
    score: float
    margin: float
    why: str


@dataclass(frozen=True)
class Summary:
    """A summary of a run.

    Attributes:
        results: the run.
        regions: a row for each method, group and region.
        telling: pairs worth a look: the worst errors, those whose check contradicts the maps, those nearest to the
            threshold, and those of whose evidence most lies in one region.
        verdicts: of the checks, how many explanations got which, by method.
        notes: what is noted of explanations, and of how many, by method.
        decided: how all pairs were decided.
    """

    results: BatchResults
    regions: tuple[RegionRow, ...]
    telling: tuple[TellingPair, ...]
    verdicts: Mapping[str, Mapping[str, int]]
    notes: Mapping[str, Mapping[str, int]]
    decided: Decided

    def save(self, folder: str | os.PathLike[str] | None = None) -> list[Path]:
        """Write `regions.csv`, plots, and `index.html`, a page with the pictures of the telling pairs.

        Args:
            folder: to write to; `summary` in the folder of the run, if left out.

        Raises:
            OutputError: it cannot be written to.
        """
        from xfr_plugin.bulk.page import draw_plots, write_page  # Matplotlib is slow to import

        place = self.results.folder / "summary" if folder is None else Path(folder)
        table = place / "regions.csv"
        write_text(table, _as_csv(self.regions))
        plots = draw_plots(self, place)
        return [table, *plots, write_page(self, place, plots)]


def summarise(folder: str | os.PathLike[str], *, group: str | None = None, count: int = 5) -> Summary:
    """Summarise a run of `batch`.

    Args:
        folder: of the run.
        group: a column of the list of pairs, or of `BatchResults.pairs`, by whose values the pairs are grouped too.
        count: telling pairs of each kind.

    Raises:
        ResultError: there is no run, or nothing is explained in it.
        UnknownNameError: the list of pairs had no such column.
        InputError: the column has more than 50 values.
    """
    results = BatchResults(folder)
    pairs = results.pairs()
    people = _people(pairs)
    rows: list[RegionRow] = []
    telling: list[TellingPair] = []
    verdicts, notes = {}, {}
    for method in results.manifest.methods:
        explained = _explained(results, method)
        if not len(explained):
            continue
        found = _Shares.of(explained, pairs, people)
        for by, groups in _groups(found.pairs, group):
            rows += [row for name, mask in groups for row in found.rows(method, by, name, mask)]
        telling += found.telling(method, count)
        verdicts[method] = Counter(filter(None, found.verdicts))
        notes[method] = Counter(chain.from_iterable(explained.column("notes").to_pylist()))
    return Summary(results, tuple(rows), tuple(telling), verdicts, notes, _decided(pairs))


@dataclass(frozen=True, eq=False)
class _Shares:
    """Net shares by region, N×R, in percent; of the N pairs rows, verdicts and whom they show, N×2."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    pairs: Any
    verdicts: Sequence[str | None]
    people: Indices

    @classmethod
    def of(cls, explained: Any, pairs: Any, people: Indices) -> _Shares:
        lists = explained.column("regions").combine_chunks()
        entries = lists.flatten()
        regions = entries.field("region").dictionary_encode()
        names, places = tuple(regions.dictionary.to_pylist()), regions.indices.to_numpy()
        owners = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy())
        net, all_of_it = np.zeros((2, len(lists), len(names)))
        columns = {name: entries.field(name).to_numpy() for name in ("evidence", "similar", "dissimilar")}
        np.add.at(net, (owners, places), columns["evidence"])
        np.add.at(all_of_it, (owners, places), columns["similar"] + columns["dissimilar"])
        totals = all_of_it.sum(axis=1, keepdims=True)
        shares = np.divide(100 * net, totals, out=np.zeros_like(net), where=totals > 0)
        numbers = explained.column("pair")
        verdicts = explained.column("verdict").to_pylist()
        return cls(names, shares, pairs.take(numbers), verdicts, people[numbers.to_numpy()])

    def rows(self, method: str, by: str, group: str, mask: NDArray[np.bool_]) -> Iterator[RegionRow]:
        """A row a region for the pairs of a group."""
        low, high = _intervals(self.values[mask], self.people[mask])
        for place, region in enumerate(self.names):
            yield RegionRow(
                method=method,
                by=by,
                group=group,
                region=region,
                pairs=int(mask.sum()),
                share=float(self.values[mask, place].mean()),
                low=low[place],
                high=high[place],
            )

    def telling(self, method: str, count: int) -> Iterator[TellingPair]:
        """The `count` first of each kind; a pair is shown once."""
        margins = self.pairs.column("margin").to_numpy()
        errors = _error_kinds(self.pairs)
        far, strongest = np.argsort(-np.abs(margins), kind="stable"), np.abs(self.values).max(axis=1)
        kinds = {
            "worst error": far[np.char.startswith(errors[far], "false")],
            "contradicted by its check": far[np.array(self.verdicts)[far] == "contradicted"],
            "nearest to the threshold": far[::-1],
            "most in one region": np.argsort(-strongest, kind="stable"),
        }
        shown: set[int] = set()
        for kind, order in kinds.items():
            for at in [int(at) for at in order if int(at) not in shown][:count]:
                shown.add(at)
                what = f"{kind}, a {errors[at]}" if kind == "worst error" else kind
                yield self._pair(method, at, what)

    def _pair(self, method: str, at: int, kind: str) -> TellingPair:
        row = self.pairs.slice(at, 1).to_pylist()[0]
        shares = dict(zip(self.names, self.values[at].tolist(), strict=True))
        return TellingPair(
            pair=row["pair"],
            probe=row["probe"],
            reference=row["reference"],
            method=method,
            score=row["score"],
            margin=row["margin"],
            why=f"{kind}; {region_in_words(shares)}",
        )


def _explained(results: BatchResults, method: str) -> Any:
    """Explanations that did not fail."""
    from pyarrow import compute

    table = results.explanations(method, ["pair", "error", "regions", "verdict", "notes"])
    return table.filter(compute.is_null(table.column("error")))


def _groups(pairs: Any, column: str | None) -> Iterator[tuple[str, list[tuple[str, NDArray[np.bool_]]]]]:
    """What pairs are grouped by, and the groups as masks."""
    yield "all", [("all", np.ones(len(pairs), dtype=np.bool_))]
    matches = np.array(pairs.column("match").to_pylist(), dtype=np.bool_)
    yield "decision", _masks(np.where(matches, "match", "no match"))
    errors = _error_kinds(pairs)
    if (errors != "").any():
        yield "error", [(name, mask) for name, mask in _masks(errors) if name]
    if column is not None:
        own = _column(pairs.column_names, column)
        masks = _masks(np.array(list(map(_group, pairs.column(own).to_pylist())), dtype=np.str_))
        if len(masks) > _MOST_GROUPS:
            raise InputError(
                f"the column {column!r} has {len(masks)} values: at most {_MOST_GROUPS} can be told apart"
            )
        yield own, masks


def _column(names: Sequence[str], wanted: str) -> str:
    """What a column of the list is called among those of the pairs: some have names of ours, see `store.KINDS`."""
    known = [name for name in names if name not in KINDS]
    for name in (f"given_{wanted}", wanted):
        if name in known:
            return name
    raise UnknownNameError.of("column", wanted, known)


def _group(value: Any) -> str:
    return _EMPTY if value is None or value == "" or value != value else str(value)


def _masks(words: NDArray[np.str_]) -> list[tuple[str, NDArray[np.bool_]]]:
    return [(str(word), words == word) for word in np.unique(words)]


def _error_kinds(pairs: Any) -> NDArray[np.str_]:
    """`right`, `false match`, `false non-match`, or nothing where nobody said who is who."""
    genuine, matches = (pairs.column(name).to_pylist() for name in ("genuine", "match"))
    names = {(True, False): "false non-match", (False, True): "false match"}
    kinds = ["" if g is None else names.get((g, m), "right") for g, m in zip(genuine, matches, strict=True)]
    return np.array(kinds, dtype=np.str_)


def _decided(pairs: Any) -> Decided:
    genuine, matches = (pairs.column(name).to_pylist() for name in ("genuine", "match"))
    found = Counter(zip(genuine, matches, strict=True))

    def count(truths: Sequence[bool | None], decisions: Sequence[bool | None]) -> int:
        return sum(found[truth, decision] for truth in truths for decision in decisions)

    anything = (True, False, None)
    return Decided(
        pairs=len(pairs),
        matches=count(anything, [True]),
        non_matches=count(anything, [False]),
        unscored=count(anything, [None]),
        genuine=count([True], [True, False]),
        impostor=count([False], [True, False]),
        false_non_matches=count([True], [False]),
        false_matches=count([False], [True]),
    )


def _people(pairs: Any) -> Indices:
    """Whom each pair shows, N×2: people by number; where they have no names, as far as genuine pairs tell."""
    from scipy.sparse import coo_matrix, csgraph

    named = [f"{side}_person" for side in SIDES]
    if set(named) <= set(pairs.column_names) and not any(pairs.column(name).null_count for name in named):
        return _numbers(pairs, "person").T
    photos = _numbers(pairs, "sha256")
    genuine = pairs.column("genuine").fill_null(False).to_numpy()
    first, second = photos[:, genuine]
    count = int(photos.max(initial=-1)) + 1
    linked = coo_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    owners: Indices = csgraph.connected_components(linked, directed=False)[1][photos.T]
    return owners


def _numbers(pairs: Any, what: str) -> Indices:
    """The same number for the same text, on either side: 2×N."""
    pa = arrow()
    texts = [pairs.column(f"{side}_{what}").cast(pa.string()).combine_chunks() for side in SIDES]
    numbers: Indices = pa.concat_arrays(texts).dictionary_encode().indices.to_numpy().reshape(2, -1)
    return numbers


def _intervals(
    values: NDArray[np.float64], people: Indices
) -> tuple[Sequence[float | None], Sequence[float | None]]:
    """95 % intervals of the means of N×R values of pairs that show people N×2; None of too few.

    Pairs that share a person, on either side, are no independent samples: dyadic clusters, Aronow, Samii and Assenova
    (arXiv 1312.3398).
    """
    from scipy.special import stdtrit

    known, numbers = np.unique(people, return_inverse=True)
    count, (first, second) = len(known), numbers.reshape(-1, 2).T
    if count < _FEWEST_PEOPLE:
        return ([None] * values.shape[1],) * 2
    mean, others = values.mean(axis=0), first != second
    off = values - mean
    pairs = np.unique(np.sort(people, axis=1), axis=0, return_inverse=True)[1].ravel()
    shared = _sums(np.concatenate((first, second[others])), np.concatenate((off, off[others])))
    twice = _sums(pairs[others], off[others])  # those of two people are in the sums of both
    variance = np.maximum((shared**2).sum(axis=0) - (twice**2).sum(axis=0), (off**2).sum(axis=0))
    half = stdtrit(count - 1, 0.975) * np.sqrt(variance * count / (count - 1)) / len(values)
    return (mean - half).tolist(), (mean + half).tolist()


def _sums(groups: Indices, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.bincount(groups, weights=column) for column in values.T], axis=1)


def _as_csv(rows: Sequence[RegionRow]) -> str:
    from pyarrow import csv

    pa = arrow()
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.Table.from_pylist([row.model_dump() for row in rows]), sink)
    return str(sink.getvalue().to_pybytes(), "utf-8")
