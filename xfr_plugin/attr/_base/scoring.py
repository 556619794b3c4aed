"""Scores of masked faces against their partners, many at once and within a bound of memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from xfr_plugin.attr._base.masks import REFERENCE_SIDE, Masks, ranges
from xfr_plugin.attr._base.smoothing import blurred
from xfr_plugin.base.captum import NullProgress, progress
from xfr_plugin.base.one_thread import blended, complement
from xfr_plugin.base.rows import partner_units
from xfr_plugin.errors import InputError

__all__ = [
    "EmbeddedFaces",
    "FaceScores",
    "Fill",
    "Keep",
    "ScoredFaces",
    "checked_fill",
    "gaussian_blurred",
    "removed",
]

Fill: TypeAlias = Literal["black", "mean", "blur"] | float
"""What stands where a face is masked: 0, each face's mean colour, the face blurred (σ 8 pixels at 112×112), or a
value."""

Keep: TypeAlias = Callable[[Tensor, slice], Tensor]
"""From masks K×H×W and a range of m faces, how much of each pixel is kept: m×K×H×W, or 1×K×H×W for all alike."""


def removed(masks: Tensor, faces: slice) -> Tensor:
    """Keep what lies outside the masks."""
    return complement(masks)[None]


_DRAWN = 64
"""Masks drawn at once, at least: with torch's threads, which passes between would wait for; see `base.one_thread`."""


class FaceScores(ABC):
    """Faces whose masked versions can be scored.

    Args:
        images: the M faces, M×C×H×W: N probes, and the N references where these are images too.
        paired: whether the references are among the images.
        fill: see `Fill`.
        limit: masked faces in one forward pass, at most.
        name: shown with the progress; None shows none.
    """

    def __init__(self, images: Tensor, paired: bool, fill: Fill, limit: int, name: str | None) -> None:
        self.images = images
        self.paired = paired
        self.limit = limit
        self.shape = (images.shape[2], images.shape[3])
        self._fills = _fill_images(images, fill)
        self._name = name

    @abstractmethod
    def clean(self) -> Tensor:
        """Scores M of the faces as they are."""

    @abstractmethod
    def _compare(self, changed: Tensor, rows: Tensor) -> Tensor:
        """Scores K of changed faces K×C×H×W, versions of the images `rows`, against their clean partners."""

    @abstractmethod
    def _compare_both(self, probes: Tensor, references: Tensor, rows: Tensor) -> Tensor:
        """Scores K of changed probes against changed references, versions of the pairs `rows`."""

    @abstractmethod
    def scores_across(self, masks: Masks) -> Tensor:
        """Mean score M×n of each masked face against all masked versions of its partner.

        Raises:
            InputError: the references are not images.
        """

    def scores(self, masks: Masks, keep: Keep = removed, stage: str | None = "") -> Tensor:
        """Scores M×n of every face under every mask, against its clean partner; no stage, no progress."""
        result = self.images.new_empty(len(self.images), len(masks))
        for faces, which, drawn in self._blocks(len(self.images), masks, stage):
            changed = self.changed(faces, keep(drawn, faces))
            rows = self._rows(faces, len(drawn))
            result[faces, which] = self._compare(changed, rows).view(-1, len(drawn))
        return result

    def scores_together(self, masks: Masks) -> Tensor:
        """Scores M×n of every pair with the same mask over both faces.

        Raises:
            InputError: the references are not images.
        """
        count = self._pairs()
        result = self.images.new_empty(count, len(masks))
        for pairs, which, drawn in self._blocks(count, masks, each=2):
            probes = self.changed(pairs, removed(drawn, pairs))
            shifted = slice(pairs.start + count, pairs.stop + count)
            references = self.changed(shifted, removed(drawn, shifted))
            rows = self._rows(pairs, len(drawn))
            result[pairs, which] = self._compare_both(probes, references, rows).view(-1, len(drawn))
        return result.repeat(2, 1)

    def changed(self, faces: slice, keep: Tensor) -> Tensor:
        """Masked versions (m·K)×C×H×W of m faces, from what is kept of each, m×K×H×W or 1×K×H×W."""
        images, fills = self.images[faces, None], self._fills[faces, None]
        return blended(fills, images, keep[:, :, None]).flatten(0, 1)

    def _blocks(
        self, faces: int, masks: Masks, stage: str | None = "", each: int = 1
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Ranges of faces and of masks, and the masks drawn: within the limit, and each mask drawn once."""
        limit = max(1, self.limit // each)
        faces_at_once = min(faces, limit)
        masks_at_once = limit // faces_at_once
        with self._progress(faces * len(masks), stage) as shown:
            for which, drawn in self._drawn(masks, masks_at_once):
                for some in ranges(faces, faces_at_once):
                    yield some, which, drawn
                    shown.update((some.stop - some.start) * len(drawn))

    def _drawn(self, masks: Masks, count: int) -> Iterator[tuple[slice, Tensor]]:
        """Ranges of so many masks, and the masks."""
        for block in ranges(len(masks), max(count, _DRAWN)):
            drawn = masks.draw(block, self.images)
            for some in ranges(len(drawn), count):
                yield slice(block.start + some.start, block.start + some.stop), drawn[some]

    def _progress(self, total: int, stage: str | None) -> Any:
        if self._name is None or stage is None:
            return NullProgress()
        return progress(desc=f"{self._name} attribution{stage and ', '}{stage}", total=total)

    def _rows(self, faces: slice, masks: int) -> Tensor:
        return torch.arange(faces.start, faces.stop, device=self.images.device).repeat_interleave(masks)

    def _pairs(self) -> int:
        if not self.paired:
            raise InputError("masking both faces needs both as images: pass (probe, reference)")
        return len(self.images) // 2


class EmbeddedFaces(FaceScores):
    """Faces compared by the cosine of their embeddings; every partner is embedded once.

    Args:
        images: see `FaceScores`.
        partners: unit embeddings N×D of the partners, where the references are not images.
        embed: unit embeddings K×D of faces K×C×H×W that are versions of the images `rows`.
        fill, limit, name: see `FaceScores`.
    """

    def __init__(
        self,
        images: Tensor,
        partners: Tensor | None,
        embed: Callable[[Tensor, Tensor], Tensor],
        fill: Fill,
        limit: int,
        name: str | None,
    ) -> None:
        super().__init__(images, partners is None, fill, limit, name)
        self._embed = embed
        every = torch.arange(len(images), device=images.device)
        self.units = torch.cat([embed(images[some], every[some]) for some in ranges(len(images), limit)])
        if partners is None:
            self.partners = self.units.roll(len(images) // 2, dims=0)
        else:
            self.partners = partner_units(partners, self.units)

    def clean(self) -> Tensor:
        return (self.units * self.partners).sum(dim=1)

    def _compare(self, changed: Tensor, rows: Tensor) -> Tensor:
        return (self._embed(changed, rows) * self.partners[rows]).sum(dim=1)

    def _compare_both(self, probes: Tensor, references: Tensor, rows: Tensor) -> Tensor:
        both = torch.cat((rows, rows + len(self.images) // 2))
        first, second = self._embed(torch.cat((probes, references)), both).chunk(2)
        return (first * second).sum(dim=1)

    def scores_across(self, masks: Masks) -> Tensor:
        """See `FaceScores`. The mean of cosines is the cosine with the mean: no more forward passes than masks."""
        count = self._pairs()
        units = self.embeddings(masks)
        return torch.einsum("mnd,md->mn", units, units.mean(dim=1).roll(count, dims=0))

    def embeddings(self, masks: Masks) -> Tensor:
        """Unit embeddings M×n×D of every face under every mask."""
        result = self.units.new_empty(len(self.images), len(masks), self.units.shape[1])
        for faces, which, drawn in self._blocks(len(self.images), masks):
            rows = self._rows(faces, len(drawn))
            units = self._embed(self.changed(faces, removed(drawn, faces)), rows)
            result[faces, which] = units.view(faces.stop - faces.start, len(drawn), -1)
        return result


class ScoredFaces(FaceScores):
    """Faces compared by a function that gives scores and nothing else.

    Args:
        images: see `FaceScores`.
        references: what the N probes are compared with, where the references are not to be explained.
        score: from K probes, K references and the pairs `rows` that they belong to, K scores.
        fill, limit, name: see `FaceScores`.
    """

    def __init__(
        self,
        images: Tensor,
        references: Tensor | None,
        score: Callable[[Tensor, Tensor, Tensor], Tensor],
        fill: Fill,
        limit: int,
        name: str | None,
    ) -> None:
        super().__init__(images, references is None, fill, limit, name)
        self._count = len(images) // 2 if references is None else len(images)
        self._references = images[self._count :] if references is None else references
        self._score = score

    def clean(self) -> Tensor:
        every = torch.arange(self._count, device=self.images.device)
        scores = [
            self._score(self.images[some], self._references[some], every[some])
            for some in ranges(self._count, self.limit)
        ]
        return torch.cat(scores).repeat(len(self.images) // self._count)

    def _compare(self, changed: Tensor, rows: Tensor) -> Tensor:
        pairs = rows % self._count
        if not self.paired:
            return self._score(changed, self._references[pairs], pairs)
        is_probe = (rows < self._count).view(-1, 1, 1, 1)
        probes = torch.where(is_probe, changed, self.images[pairs])
        references = torch.where(is_probe, self._references[pairs], changed)
        return self._score(probes, references, pairs)

    def _compare_both(self, probes: Tensor, references: Tensor, rows: Tensor) -> Tensor:
        return self._score(probes, references, rows)

    def scores_across(self, masks: Masks) -> Tensor:
        """See `FaceScores`. Without embeddings it takes the square of the number of masks."""
        count, total = self._pairs(), len(masks)
        sums = self.images.new_zeros(2, count, total)
        with self._progress(count * total**2, "") as shown:
            for pair in range(count):
                for i in range(total):
                    sums[:, pair] += self._row_across(masks, pair, i)
                    shown.update(total)
        return sums.flatten(0, 1) / total

    def _row_across(self, masks: Masks, pair: int, i: int) -> Tensor:
        """Scores 2×n of mask i over the probe: their sum at i, and what each gives the reference's masks."""
        shares = self.images.new_zeros(2, len(masks))
        probe = self._under(masks, slice(i, i + 1), pair)
        for which in ranges(len(masks), self.limit):
            references = self._under(masks, which, pair + self._count)
            rows = torch.full((len(references),), pair, device=self.images.device)
            scores = self._score(probe.expand_as(references), references, rows)
            shares[0, i] += scores.sum()
            shares[1, which] = scores
        return shares

    def _under(self, masks: Masks, which: slice, face: int) -> Tensor:
        faces = slice(face, face + 1)
        return self.changed(faces, removed(masks.draw(which, self.images), faces))


def checked_fill(fill: Fill) -> Fill:
    """Return the fill if there is such a one.

    Raises:
        InputError: neither a name of a fill nor a number.
    """
    names = get_args(get_args(Fill)[0])
    is_number = isinstance(fill, (int, float)) and not isinstance(fill, bool)
    if not is_number and fill not in names:
        raise InputError(f"fill must be one of {', '.join(names)}, or a number, got {fill!r}")
    return fill


def _fill_images(images: Tensor, fill: Fill) -> Tensor:
    """What stands where images M×C×H×W are masked: M×C×H×W, or M×C×1×1."""
    if fill == "mean":
        return images.mean(dim=(2, 3), keepdim=True)
    if fill == "blur":
        return gaussian_blurred(images, 8.0)
    value = 0.0 if fill == "black" else float(fill)
    return images.new_full((*images.shape[:2], 1, 1), value)


def gaussian_blurred(maps: Tensor, sigma: float) -> Tensor:
    """Blur M×…×H×W by a standard deviation given for faces of 112×112 pixels."""
    height, width = maps.shape[-2:]
    scaled = sigma * (height * width) ** 0.5 / REFERENCE_SIDE
    reach = min(int(3 * scaled + 0.5), height - 1, width - 1)  # the border is mirrored, once at most
    return blurred(maps, (2 * reach + 1, scaled))
