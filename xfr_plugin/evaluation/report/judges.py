"""The judges: what each asks, and where its answer stands."""

from __future__ import annotations

from dataclasses import dataclass

from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE

__all__ = ["JUDGES", "Judge"]


@dataclass(frozen=True)
class Judge:
    """A column of the table.

    Attributes:
        group: the question that it belongs to.
        heading: of the column.
        asks: what, in one sentence.
        where: protocol, slice, variant and metric.
        chance: what a map that knows nothing has; of correlations 0; None: what the random map has in this run.
        best: what a map that knows everything has, where no ceiling was measured; None: the best method of this run.
        falls: lower is better.
    """

    group: str
    heading: str
    asks: str
    where: tuple[str, str, str, str]
    chance: float | None = 0.5
    best: float | None = 1.0
    falls: bool = False

    @property
    def is_middle(self) -> bool:
        """Whether it wants a value that may be missed on both sides."""
        return self.chance is not None and self.best is not None and self.best < self.chance

    @property
    def rises(self) -> bool:
        """Whether higher is better."""
        return not (self.falls or self.is_middle)


_MOVED = f"moved > {MIN_SCORE_CHANGE:g}"


def _planted(heading: str, asks: str, kind: str) -> Judge:
    return Judge("planted", heading, asks, ("planted", f"{kind}, {_MOVED}", "", "auc"))


def _changed(heading: str, asks: str, protocol: str, kind: str) -> Judge:
    return Judge("where it went", heading, asks, (protocol, kind, "", "change auc"))


def _natural(heading: str, asks: str, kind: str, variant: str, metric: str) -> Judge:
    return Judge("natural", heading, asks, ("natural", kind, variant, metric), chance=0)


def _removal(heading: str, asks: str, protocol: str, variant: str) -> Judge:
    where = (protocol, "", variant, "margin_auc")
    return Judge("removal", heading, asks, where, chance=None, best=None, falls=protocol == "deletion")


JUDGES = (
    _planted(
        "planted, against",
        "a region of another person is put into the probe: does it argue most against?",
        "dissimilar",
    ),
    _planted(
        "planted, for",
        "a region of the reference's person is put into the probe: does it argue most for?",
        "similar",
    ),
    _planted("two planted", "the same of two regions at once, against", "dissimilar, two regions"),
    Judge(
        "planted",
        "control",
        "a region of the same person is put in: .5 is right, more is a seam found",
        ("planted", "dissimilar, control", "", "auc"),
        chance=1.0,
        best=0.5,
    ),
    _changed(
        "went, one region",
        "before and after a region is planted: does the map change there?",
        "paired",
        "one region",
    ),
    _changed("went, two regions", "the same of two regions at once", "paired", "two regions"),
    _changed("went, drawn over", "before and after something is drawn over the probe", "occluders", ""),
    _changed(
        "went, on photographs",
        "the same drawn on the photograph, which is detected and aligned after it",
        "photographs",
        "",
    ),
    Judge(
        "hidden",
        "drawn over",
        "something drawn hides a part of the probe: does that part argue most against?",
        ("occluders", "", "", "auc"),
    ),
    Judge(
        "hidden",
        "on photographs",
        "the same drawn on the photograph, which is detected and aligned after it",
        ("photographs", "", "", "auc"),
    ),
    Judge(
        "hidden",
        "worn",
        "the person wears something in one photograph, and the score is lower: does it argue most against?",
        ("worn", _MOVED, "", "auc"),
    ),
    _natural(
        "natural, genuine",
        "correlation of evidence by area with what regions truly contribute",
        "genuine",
        "strangers",
        "density",
    ),
    _natural(
        "natural, this pair",
        "the same, of what tells this genuine pair from others",
        "genuine",
        "strangers",
        "specific",
    ),
    _natural("natural, impostor", "the same of impostor pairs", "impostor", "strangers", "density"),
    _natural(
        "natural, blurred",
        "genuine pairs again, regions being taken away by blur",
        "genuine",
        "blur",
        "density",
    ),
    _removal(
        "deletion",
        "what argues for a match goes first, a stranger's face comes: does the score of a genuine pair fall soon?",
        "deletion",
        "similar, probe, strangers",
    ),
    _removal(
        "insertion",
        "what argues for a match comes first, into a stranger's face: does the score rise soon?",
        "insertion",
        "similar, probe, strangers",
    ),
    _removal(
        "deletion, impostor",
        "what argues against goes first: does the score of an impostor pair rise soon?",
        "deletion",
        "dissimilar, probe, strangers",
    ),
    _removal(
        "insertion, impostor",
        "what argues against comes first: does the score stay down?",
        "insertion",
        "dissimilar, probe, strangers",
    ),
    _removal("deletion, black", "as deletion, with black", "deletion", "similar, probe, black"),
    _removal("insertion, black", "as insertion, with black", "insertion", "similar, probe, black"),
)
