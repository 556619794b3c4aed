"""What many explanations say together: which regions argue, by decision, by error, by a column of the user's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.base.documents import Document
from xfr_plugin.base.files import write_text
from xfr_plugin.bulk.pairs import arrow
from xfr_plugin.bulk.results import BatchResults
from xfr_plugin.bulk.store import KINDS
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.explanation.words import component_name

__all__ = ["RegionRow", "Summary", "TellingPair", "summarise"]

_DRAWS = 1000
_CHUNK = 50
_FEWEST_PROBES = 5
_MOST_GROUPS = 50
_EMPTY = "(empty)"


class RegionRow(Document):
    """What a region argues, on average over a group of pairs.

    Attributes:
        method: that explained them.
        by: what the group is of: `all`, `decision`, `error`, or the name of a column of `BatchResults.pairs`.
        group: which one; `(empty)` where the column says nothing.
        region: name.
        pairs: in the group.
        share: mean net evidence, in percent of all evidence in the pair's two faces; positive argues for a match.
        low: 95 % interval of the mean; probes are drawn with all their pairs, which are no independent samples. None
            where the group has fewer than five probes.
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
        telling: pairs worth a look: the worst errors, those nearest to the threshold, and those of whose evidence
            most lies in one region.
        verdicts: of the checks, how many explanations got which, by method.
    """

    results: BatchResults
    regions: tuple[RegionRow, ...]
    telling: tuple[TellingPair, ...]
    verdicts: Mapping[str, Mapping[str, int]]

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


def summarise(
    folder: str | os.PathLike[str], *, group: str | None = None, count: int = 5, seed: int = 0
) -> Summary:
    """Summarise a run of `batch`.

    Args:
        folder: of the run.
        group: a column of the list of pairs, or of `BatchResults.pairs`, by whose values the pairs are grouped too.
        count: telling pairs of each kind.
        seed: of the intervals' draws.

    Raises:
        ResultError: there is no run, or nothing is explained in it.
        UnknownNameError: the list of pairs had no such column.
        InputError: the column has more than 50 values.
    """
    results = BatchResults(folder)
    pairs = results.pairs()
    rows: list[RegionRow] = []
    telling: list[TellingPair] = []
    verdicts = {}
    for method in results.manifest.methods:
        explained = _explained(results, method)
        if not len(explained):
            continue
        found = _Shares.of(explained, pairs)
        for by, groups in _groups(found.pairs, group):
            rows += [row for name, mask in groups for row in found.rows(method, by, name, mask, seed)]
        telling += found.telling(method, count)
        verdicts[method] = _counts(explained.column("verdict").to_pylist())
    return Summary(results, tuple(rows), tuple(telling), verdicts)


@dataclass(frozen=True, eq=False)
class _Shares:
    """Net shares by region, N×R, in percent, and the rows of their N pairs."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    pairs: Any

    @classmethod
    def of(cls, explained: Any, pairs: Any) -> _Shares:
        names = tuple(dict.fromkeys(found["region"] for found in explained.column("regions")[0].as_py()))
        lists = explained.column("regions").combine_chunks()
        entries = lists.flatten()
        places = np.array([names.index(name) for name in entries.field("region").to_pylist()])
        owners = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy())
        net, all_of_it = np.zeros((2, len(lists), len(names)))
        columns = {name: entries.field(name).to_numpy() for name in ("evidence", "similar", "dissimilar")}
        np.add.at(net, (owners, places), columns["evidence"])
        np.add.at(all_of_it, (owners, places), columns["similar"] + columns["dissimilar"])
        totals = all_of_it.sum(axis=1, keepdims=True)
        shares = np.divide(100 * net, totals, out=np.zeros_like(net), where=totals > 0)
        return cls(names, shares, pairs.take(explained.column("pair")))

    def rows(
        self, method: str, by: str, group: str, mask: NDArray[np.bool_], seed: int
    ) -> Iterator[RegionRow]:
        """A row a region for the pairs of a group."""
        probes = np.asarray(self.pairs.column("probe").combine_chunks().indices)[mask]
        low, high = _intervals(self.values[mask], probes, seed)
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
        wrong = np.flatnonzero(np.char.startswith(errors, "false"))
        strongest = np.abs(self.values).max(axis=1)
        kinds = {
            "worst error": wrong[np.argsort(-np.abs(margins[wrong]))],
            "nearest to the threshold": np.argsort(np.abs(margins)),
            "most in one region": np.argsort(-strongest),
        }
        shown: set[int] = set()
        for kind, order in kinds.items():
            for at in [int(at) for at in order if int(at) not in shown][:count]:
                shown.add(at)
                yield self._pair(method, at, kind)

    def _pair(self, method: str, at: int, kind: str) -> TellingPair:
        row = self.pairs.slice(at, 1).to_pylist()[0]
        place = int(np.abs(self.values[at]).argmax())
        region, share = component_name(self.names[place]), self.values[at, place]
        return TellingPair(
            pair=row["pair"],
            probe=row["probe"],
            reference=row["reference"],
            method=method,
            score=row["score"],
            margin=row["margin"],
            why=f"{kind}; {region} has {share:+.0f} % of the evidence",
        )


def _explained(results: BatchResults, method: str) -> Any:
    """Explanations that did not fail."""
    from pyarrow import compute

    table = results.explanations(method, ["pair", "error", "regions", "verdict"])
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


def _intervals(
    values: NDArray[np.float64], owners: NDArray[np.int64], seed: int
) -> tuple[Sequence[float | None], Sequence[float | None]]:
    """95 % intervals of the means of N×R values, by drawing owners with all that is theirs; None of too few."""
    _, groups = np.unique(owners, return_inverse=True)
    if groups.max() + 1 < _FEWEST_PROBES:
        return ([None] * values.shape[1],) * 2
    sizes = np.bincount(groups).astype(np.float64)
    sums = np.stack([np.bincount(groups, weights=column) for column in values.T], axis=1)
    rng, count, means = np.random.default_rng(seed), len(sizes), []
    for _ in range(0, _DRAWS, _CHUNK):  # a few at a time: groups may be many
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=_CHUNK)
        means.append((drawn @ sums) / (drawn @ sizes)[:, None])
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0).tolist()
    return low, high


def _counts(words: Sequence[str | None]) -> dict[str, int]:
    known = [word for word in words if word is not None]
    return {word: known.count(word) for word in dict.fromkeys(known)}


def _as_csv(rows: Sequence[RegionRow]) -> str:
    from pyarrow import csv

    pa = arrow()
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.Table.from_pylist([row.model_dump() for row in rows]), sink)
    return str(sink.getvalue().to_pybytes(), "utf-8")
