"""What a report holds: explanations by three methods, the check, which regions matched, checksums, the command."""

from __future__ import annotations

import datetime
import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.attr.registry import AUTO, METHODS, chosen_method, preferred_methods
from xfr_plugin.base.choices import DEFAULT_RECOGNIZER
from xfr_plugin.base.files import atomic_path, write_text, writing_to
from xfr_plugin.base.modes import own_modes
from xfr_plugin.errors import ExplanationError, InputError
from xfr_plugin.explanation.comparison import QUICK_METHODS, Comparison, compare
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.explanation.pipeline import RecognizerSource, open_recognizer
from xfr_plugin.faces import Alignment, PhotoSource
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import find_decoder

if TYPE_CHECKING:  # Zennit is slow to import
    from xfr_plugin.explanation.matches import RegionMatches

__all__ = ["Input", "Report", "build_report"]

_METHODS = 3
_PASSES = 1100
"""About what interactions by Shapley values take."""

_LONGEST = 60.0
"""Seconds that they may be expected to take; where they would take longer, interactions are those of BiLRP."""


@dataclass(frozen=True)
class Input:
    """A photograph as it was given.

    Attributes:
        name: of the file; what kind of object it was, if it was none.
        sha256: checksum of the file's or object's bytes.
    """

    name: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Report:
    """A report on a pair.

    Attributes:
        explanation: by the method that was asked for, checked.
        comparison: that method and others beside it.
        inputs: probe and reference.
        matches: which regions matched, by Shapley values, or by BiLRP where these would take too long; None for a
            recognizer that gives scores only.
        likenesses: what the decoder makes of both embeddings, H×W×3; None unless asked for. Personal data.
        command: that makes the report again.
        created: when it was made.
    """

    explanation: Explanation
    comparison: Comparison
    inputs: tuple[Input, Input]
    matches: RegionMatches | None
    likenesses: tuple[NDArray[np.uint8], ...] | None
    command: str
    created: datetime.datetime

    @property
    def matches_by(self) -> Literal["shapley", "bilrp"] | None:
        """What told which regions matched."""
        if self.matches is None:
            return None
        return "shapley" if self.matches.composite == "shapley" else "bilrp"

    def html(self) -> str:
        """One HTML page that needs nothing but itself.

        Raises:
            InputError: Jinja2 is not installed.
        """
        from xfr_plugin.explanation.report.render import html_of

        return html_of(self)

    def pdf(self) -> bytes:
        """The same as a PDF on A4.

        Raises:
            InputError: Jinja2 or WeasyPrint are not installed.
        """
        from xfr_plugin.explanation.report.render import pdf_of

        return pdf_of(self.html())

    def save(self, path: str | os.PathLike[str], *, pdf: bool = False) -> list[Path]:
        """Write the page, and beside it the PDF, if asked for; each whole or not at all.

        Raises:
            ResultError: they cannot be written.
        """
        page = Path(path)
        text, printed = self.html(), self.pdf() if pdf else None
        with writing_to(page.parent):
            write_text(page, text)
            if printed is None:
                return [page]
            with atomic_path(page.with_suffix(".pdf")) as temporary:
                temporary.write_bytes(printed)
        return [page, page.with_suffix(".pdf")]


@own_modes()
def build_report(
    photo_a: PhotoSource,
    photo_b: PhotoSource,
    *,
    recognizer: RecognizerSource = DEFAULT_RECOGNIZER,
    method: str | None = AUTO,
    threshold: float | None = None,
    fmr: float | None = None,
    alignment: Alignment = "auto",
    faces: tuple[int, int] = (0, 0),
    matches: Literal["auto", "shapley", "bilrp"] = "auto",
    reconstructions: bool = False,
    command: str = "",
) -> Report:
    """Explain a pair by a method and two others, check them, and put all that is known of it together.

    Args:
        photo_a, photo_b, recognizer, method, threshold, fmr, alignment, faces: see `explain`.
        matches: what tells which regions matched, see `match_regions`; `auto` for Shapley values where they are
            expected to take a minute at most, and else BiLRP.
        reconstructions: also show what the decoder makes of the embeddings. They are personal data.
        command: that is printed as the way to make it again.

    Raises:
        ExplanationError: the method has no answer; for other errors, and warnings, see `explain`.
    """
    model = open_recognizer(recognizer, None)
    chosen = chosen_method(method, model).name
    found = compare(
        photo_a, photo_b, methods=_beside(chosen, model), recognizer=model, threshold=threshold, fmr=fmr,
        alignment=alignment, faces=faces, check=True,
    )  # fmt: skip
    explanation = found.explanations.get(chosen)
    if explanation is None:
        raise ExplanationError(f"{chosen} has no answer: {found.results[0].error}")
    return Report(
        explanation=replace(explanation, timings={**found.timings, **explanation.timings}),
        comparison=found,
        inputs=(_input(photo_a), _input(photo_b)),
        matches=_matches(model, found, matches),
        likenesses=_likenesses(model, found) if reconstructions else None,
        command=command,
        created=datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0),
    )


def _beside(chosen: str, recognizer: Recognizer) -> list[str]:
    """The method, and the best known others that can explain the recognizer."""
    known = [*preferred_methods(), *(METHODS[name] for name in QUICK_METHODS)]
    able = [method.name for method in known if method.serves(recognizer)]
    return list(dict.fromkeys([chosen, *able]))[:_METHODS]


def _input(photo: PhotoSource) -> Input:
    if isinstance(photo, (str, os.PathLike)):
        path = Path(photo)
        return Input(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return Input("encoded image", hashlib.sha256(photo).hexdigest())
    pixels = np.ascontiguousarray(np.asarray(photo))
    return Input(f"{type(photo).__name__} {pixels.shape}", hashlib.sha256(pixels.tobytes()).hexdigest())


def _matches(
    recognizer: Recognizer, found: Comparison, by: Literal["auto", "shapley", "bilrp"]
) -> RegionMatches | None:
    """Which regions matched, on the crops that were found; None if nothing can tell."""
    from xfr_plugin.explanation.matches import match_regions

    if by == "auto":
        by = "shapley" if _expected_seconds(recognizer, found) <= _LONGEST else "bilrp"
    with suppress(InputError):  # it gives scores only, or its layers have no rules
        return match_regions(
            *found.faces,
            recognizer=recognizer,
            by=by,
            threshold=found.verification.threshold,
            alignment="aligned",
        )
    return None


@torch.no_grad()
def _expected_seconds(recognizer: Recognizer, found: Comparison) -> float:
    """What Shapley interactions will take, by a pass of both faces; 0 for one that gives scores only."""
    if recognizer.gives == "scores":
        return 0.0
    images, taken = _images(recognizer, found), []
    for _ in range(3):  # other work of the machine makes one of them slow
        start = time.perf_counter()
        recognizer.embed(images)
        taken.append(time.perf_counter() - start)
    return min(taken) / len(images) * _PASSES


def _images(recognizer: Recognizer, found: Comparison) -> Tensor:
    images = torch.from_numpy(np.stack(found.faces).transpose(0, 3, 1, 2) / 255)
    return images.to(recognizer.device, recognizer.dtype)


@torch.no_grad()
def _likenesses(recognizer: Recognizer, found: Comparison) -> tuple[NDArray[np.uint8], ...]:
    decoder = find_decoder(recognizer)
    units = recognizer.embed(_images(recognizer, found))
    decoded = decoder.faces(units.to(decoder.mean_embedding)).clamp(0, 1).permute(0, 2, 3, 1)
    made: Sequence[NDArray[np.uint8]] = list((decoded * 255).round().byte().cpu().numpy())
    return tuple(made)
