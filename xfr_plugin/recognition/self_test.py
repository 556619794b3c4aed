"""The self-test of a recognizer: different faces of nobody must not all be alike.

Wrong preprocessing is the commonest way to wrong decisions: pixels of 0…255 where 0…1 is wanted, or the reverse, make
all faces nearly the same, and every pair a match. Eight synthetic faces show it in one small batch. What they cannot
show: RGB and BGR exchanged, or another template of alignment; such embeddings are worse, and still differ.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from xfr_plugin.base.documents import Document
from xfr_plugin.base.replicas import replica
from xfr_plugin.errors import InputError, XfrError, in_one_line
from xfr_plugin.recognition.outputs import check_units

if TYPE_CHECKING:
    from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["SelfTest", "faces_of_nobody", "measured_scores", "self_test"]

_ALL_ALIKE = 0.9999
"""Least cosine of different faces from which on a network sees no difference. Little trained ones stay below it."""

_ALIKE = 0.99
"""The same, if with other settings the faces lie well apart. Wrong settings give .999 and more, right ones .3."""

_SAME = 0.99
"""Least cosine of one face in two batches; half precision gives .9999."""

_WELL_APART = 0.4
"""Mean cosine of different faces with settings that are clearly right."""

_FEW = 4

_OTHER_SETTINGS = ((0.5, 0.5), (0.0, 1.0), (0.0, 1 / 255), (0.5, 1 / 255))
_OTHER_SIZES = ((112, 112), (160, 160), (160, 120))


class SelfTest(Document):
    """Cosines of the pairs of eight different faces of nobody, and of one with itself in another batch."""

    least: float
    mean: float
    most: float
    same: float

    @property
    def span(self) -> float:
        """By how much the score of a face with itself is above those of different faces."""
        return self.same - self.mean


@cache
def faces_of_nobody(size: tuple[int, int] = (112, 112)) -> Tensor:
    """Eight faces of people who do not exist, on ArcFace's template, 8×3×H×W in [0, 1]; see `swaps.donors`.

    Args:
        size: height and width in pixels; a face keeps its height.
    """
    with resources.as_file(resources.files("xfr_plugin.recognition") / "faces_of_nobody.png") as path:
        sheet = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255
    faces = torch.stack(sheet.split(sheet.shape[1], dim=2))
    height, width = size
    square = functional.interpolate(faces, (height, height), mode="bilinear", antialias=True).clamp(0, 1)
    margin = width - height
    left = int(np.floor(margin / 2))
    return functional.pad(square, (left, margin - left))


def self_test(recognizer: Recognizer) -> SelfTest:
    """Embed faces of nobody, and refuse a recognizer to which they are all alike.

    Raises:
        InputError: it takes different faces for one person, or its embeddings depend on chance or on the rest of
            the batch, or are zero or not finite.

    Warns:
        UserWarning: all of these faces match at its threshold, and with other settings they would differ.
    """
    try:
        found = measured_scores(recognizer) if recognizer.gives == "scores" else _measured(recognizer)
    except (XfrError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # of foreign code, a network's or a function's
        height, width = recognizer.input_size
        raise InputError(
            f"{recognizer.name} cannot embed faces of {height}×{width} pixels: {in_one_line(error)}; check "
            "input_size, and that it takes three colours"
        ) from error
    if recognizer.gives == "scores":
        return _checked_scores(recognizer, found)
    if found.same < _SAME:
        raise InputError(
            f"{recognizer.name} embeds the same face in two batches with a cosine of {found.same:.3f}: its "
            "embeddings depend on chance or on the rest of the batch (noise, or BatchNorm without statistics)"
        )
    limit = min(_ALIKE, recognizer.threshold) if recognizer.decides else _ALIKE
    advice = _advice(recognizer) if found.least >= limit else ""
    if found.least >= (_ALIKE if advice else _ALL_ALIKE):
        raise InputError(
            f"{recognizer.name} takes different faces for one person (cosines of at least {found.least:.4f}): "
            f"{advice or 'check mean, std and input_size, and that the network is trained'}"
        )
    if advice:
        warnings.warn(
            f"{recognizer.name} takes eight different faces for one person at its threshold "
            f"(cosines {found.least:.2f}…{found.most:.2f}): {advice}",
            UserWarning,
            stacklevel=4,
        )
    return found


@torch.no_grad()
def measured_scores(recognizer: Recognizer) -> SelfTest:
    """What a self-test measures of a function that gives scores: of four faces, as each may cost a request."""
    faces = faces_of_nobody(recognizer.input_size)[:_FEW].to(recognizer.device, recognizer.dtype)
    left, right = torch.triu_indices(_FEW, _FEW)
    scores = recognizer.compare(faces[left], faces[right]).double()
    same, different = scores[left == right], scores[left != right]
    return SelfTest(
        least=float(different.min()),
        mean=float(different.mean()),
        most=float(different.max()),
        same=float(same.min()),
    )


def _checked_scores(recognizer: Recognizer, found: SelfTest) -> SelfTest:
    """Refuse a function whose scores are no likeness."""
    if not found.same > found.mean or found.same == found.most == found.least:
        raise InputError(
            f"{recognizer.name} gives a face compared with itself a score of {found.same:.4g}, and different faces "
            f"{found.least:.4g}…{found.most:.4g}: the more alike two faces are, the higher it must be "
            "(of a distance give its negative)"
        )
    if recognizer.decides and found.least >= recognizer.threshold:
        warnings.warn(
            f"{recognizer.name} takes four different faces for one person at its threshold "
            f"(scores {found.least:.4g}…{found.most:.4g})",
            UserWarning,
            stacklevel=4,
        )
    return found


def _advice(recognizer: Recognizer) -> str:
    """Other settings with which the faces lie well apart, in words; empty if there are none."""
    apart = {}
    for other, words in _others(recognizer):
        with contextlib.suppress(
            Exception
        ):  # not every network takes every size, and each refuses it in its way
            apart[words] = _measured(other).mean
    best = min(apart, key=lambda words: apart[words], default="")
    if not best or apart[best] >= _WELL_APART:
        return ""
    return f"with {best} their mean cosine would be {apart[best]:.2f}; pixels are given as 0…1 here"


def _others(recognizer: Recognizer) -> Iterator[tuple[Recognizer, str]]:
    for size in _OTHER_SIZES:
        other = replica(recognizer)
        other.input_size = size
        yield other, f"input_size={size}"
    for mean, std in _OTHER_SETTINGS:
        other = replica(recognizer)
        other.mean, other.std = torch.full_like(other.mean, mean), torch.full_like(other.std, std)
        yield other, f"mean={mean:g}, std={std:.4g}"


def _measured(recognizer: Recognizer) -> SelfTest:
    faces = faces_of_nobody(recognizer.input_size).to(recognizer.device, recognizer.dtype)
    quiet = replica(recognizer)
    for module in quiet.modules():
        module._forward_hooks.clear()  # those of others wait for faces of theirs
    with torch.no_grad():
        units = check_units(quiet(faces), recognizer.name).double()
        again = check_units(quiet(faces[:1]), recognizer.name).double()
    cosines = units @ units.T
    different = cosines[~torch.eye(len(units), dtype=torch.bool, device=units.device)]
    return SelfTest(
        least=float(different.min()),
        mean=float(different.mean()),
        most=float(different.max()),
        same=float(again[0] @ units[0]),
    )
