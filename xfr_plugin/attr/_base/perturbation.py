"""The base of attributions that see scores only: faces are masked, and the scores that result are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr._base.pair import Inputs, Pair, PairAttribution, _read_pair, _refuse_target, readied
from xfr_plugin.attr._base.scoring import EmbeddedFaces, FaceScores, Fill, ScoredFaces, checked_fill
from xfr_plugin.attr._base.smoothing import Blur, blurred, checked_blur
from xfr_plugin.base.captum import (
    PerturbationAttribution,
    _format_additional_forward_args,
    _format_output,
    log_usage,
)
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.base.rows import with_rows
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.backends import PAYS
from xfr_plugin.recognition.black_boxes import scores_in
from xfr_plugin.recognition.folding import for_scores
from xfr_plugin.recognition.outputs import tensor_in

__all__ = ["PERTURBATIONS_PER_EVAL", "PerturbationPairAttribution", "ScoreFunction"]

PERTURBATIONS_PER_EVAL = 8
"""Masked faces in one forward pass, unless said otherwise: the fastest on a CPU, whose caches it fits. Use more on a
GPU, and for a recognizer behind an API whatever it takes at once."""

ScoreFunction = Callable[..., Any]
"""From probes K×C×H×W and references K×C×H×W (and further arguments), K scores: a tensor or a sequence of numbers."""

BlackBox = TypeVar("BlackBox", bound="PerturbationPairAttribution")


class PerturbationPairAttribution(PairAttribution, PerturbationAttribution):  # type: ignore[misc]  # untyped Captum
    """Attribution of a verification score by masking: no gradient is ever asked for.

    Two forms. With a forward function from images to embeddings, as for every `PairAttribution`, each partner is
    embedded once. With a score function alone, see `from_scores`, a recognizer of which nothing else is known, for
    instance one behind an API, is explained. Masks are made once and serve all faces and pairs; they follow from the
    options and the image size alone, so that maps are reproducible and the global random state is left alone.

    Args:
        forward_func, threshold: see `PairAttribution`.
        fill: what stands where a face is masked: `black` (0), `mean` (each face's mean colour), `blur` (the face
            blurred by a Gaussian of σ 8 pixels at 112×112), or a number.
        blur: kernel size and σ, in pixels, of a Gaussian blur of the map; None for none.

    Raises:
        InputError: an unknown option.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        fill: Fill = "black",
        blur: Blur | None = None,
    ) -> None:
        super().__init__(forward_func, threshold)
        self.fill = checked_fill(fill)
        self.blur = checked_blur(blur)
        self.scores_only = False

    @classmethod
    def from_scores(
        cls: type[BlackBox], score_func: ScoreFunction, threshold: float, **options: Any
    ) -> BlackBox:
        """Make the attribution for a function that compares faces and gives scores, of any scale.

        Then `attribute` takes `(probe, reference)`; or the probe alone, with whatever the score function takes as its
        reference, a tensor of one row for each pair or one for all, first in `additional_forward_args`. Further
        arguments are handed to the score function, their rows picked where they have one for each pair.

        Args:
            score_func: see `ScoreFunction`. More similar faces must score higher.
            threshold: score at and above which a pair is a match.
            options: of the class.

        Raises:
            InputError: an unknown option.
        """
        attribution = cls(score_func, threshold, **options)
        attribution.scores_only = True
        return attribution

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # Captum, as above
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
        perturbations_per_eval: int = PERTURBATIONS_PER_EVAL,
        show_progress: bool = False,
    ) -> Inputs:
        """Attribute the score of each pair to its pixels.

        Args:
            inputs, target: see `PairAttribution.attribute`.
            additional_forward_args: see `PairAttribution.attribute`, and `from_scores`.
            perturbations_per_eval: masked faces in one forward pass, at most. It bounds the memory, however many
                pairs there are; the maps do not depend on it.
            show_progress: show a progress bar on the standard error.

        Returns:
            Signed maps: a tensor or tuple like `inputs`, on its device and of its type.

        Raises:
            InputError: see `PairAttribution.attribute`; or inputs that are not floating-point numbers, or a score
                function that does not return a score for every pair.
            AssertionError: a target was given (Captum's own check).
        """
        is_tuple = isinstance(inputs, tuple)
        images = inputs if isinstance(inputs, tuple) else (inputs,)
        with own_modes(), torch.no_grad():
            pair = self._read(images, _format_additional_forward_args(additional_forward_args) or ())
            _refuse_target(len(images[0]), target)
            maps = self._spread(self._maps(self._faces(pair, perturbations_per_eval, show_progress)), pair)
        maps = maps.to(images[0].dtype)
        sides = maps.split(len(images[0])) if len(images) == 2 else (maps,)
        output: Inputs = _format_output(is_tuple, tuple(side.contiguous() for side in sides))
        return output

    def _maps(self, faces: FaceScores) -> Tensor:
        """Signed maps M×H×W of the faces: what every method that masks single faces makes."""
        raise NotImplementedError

    def _attribute_pair(self, pair: Pair) -> Tensor:
        with torch.no_grad():
            return self._spread(self._maps(self._faces(pair, PERTURBATIONS_PER_EVAL, False)), pair)

    def _spread(self, maps: Tensor, pair: Pair) -> Tensor:
        """Blurred maps M×C×H×W with an equal part of the pixel's value in every colour."""
        channels = pair.images.shape[1]
        return (blurred(maps, self.blur)[:, None] / channels).expand_as(pair.images)

    def _read(self, images: tuple[Tensor, ...], arguments: tuple[Any, ...]) -> Pair:
        if self.scores_only and len(images) == 1:
            pair = _read_scored(images[0], arguments)
        else:
            pair = _read_pair(images, arguments)
        if pair.images.ndim != 4 or not pair.images.is_floating_point():
            raise InputError(
                f"masking needs images N×C×H×W of floating-point numbers, got {tuple(pair.images.shape)} "
                f"of {pair.images.dtype}"
            )
        return readied(self.forward_func, pair)

    def _faces(self, pair: Pair, limit: int, show_progress: bool) -> FaceScores:
        checked_at_least("perturbations_per_eval", limit, 1)
        name = self.get_name() if show_progress else None
        images = pair.images.detach()
        if self.scores_only:
            return ScoredFaces(images, pair.partners, self._score_rows(pair), self.fill, limit, name)
        return EmbeddedFaces(images, pair.partners, self._embed_rows(pair, limit), self.fill, limit, name)

    def _embed_rows(self, pair: Pair, limit: int, passes: int = PAYS) -> Callable[[Tensor, Tensor], Tensor]:
        """Function from changed images, and the images they are versions of, to unit embeddings.

        `passes` says of about how many images; see `recognition.backends`.
        """
        count = len(pair.images)
        few = torch.arange(min(limit, count), device=pair.images.device)
        function = for_scores(
            self.forward_func, pair.images[few].detach(), _picked(pair.forward_args, few, count), passes
        )

        def embed(images: Tensor, rows: Tensor) -> Tensor:
            returned = function(images, *_picked(pair.forward_args, rows, count))
            return functional.normalize(tensor_in(returned, len(images), self.forward_func), dim=1)

        return embed

    def _score_rows(self, pair: Pair) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Function from probes, references and the pairs they belong to, to scores."""
        count = len(pair.images)  # arguments have a row for each image, also those of the references

        def score(probes: Tensor, references: Tensor, rows: Tensor) -> Tensor:
            return scores_in(
                self.forward_func(probes, references, *_picked(pair.forward_args, rows, count)), probes
            )

        return score


def _picked(arguments: tuple[Any, ...], rows: Tensor, count: int) -> tuple[Any, ...]:
    """Arguments with those rows of what has one for each of `count` images."""
    return with_rows(arguments, count, lambda value: value[rows.to(value.device)])


def _read_scored(probe: Tensor, arguments: tuple[Any, ...]) -> Pair:
    """A probe alone, and what a score function compares it with."""
    if not arguments or not isinstance(arguments[0], Tensor) or arguments[0].ndim == 0:
        raise InputError(
            "a probe alone needs what it is compared with as the first of additional_forward_args"
        )
    count, reference = len(probe), arguments[0].detach()
    if count == 0:
        raise InputError("inputs hold no pair")
    if len(reference) not in (1, count):
        raise InputError(f"the reference must have {count} rows, or 1 for all, got {len(reference)}")
    return Pair(probe, reference.expand(count, *reference.shape[1:]), arguments[1:])
