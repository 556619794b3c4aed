"""The base of all pair attributions: Captum's contract for a face and its partner."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr._base.prepared import Explained, Prepared
from xfr_plugin.base.captum import (
    Attribution,
    _format_additional_forward_args,
    _format_output,
    _select_targets,
    log_usage,
)
from xfr_plugin.base.modes import own_modes
from xfr_plugin.base.rows import partner_units, with_rows
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.folding import safely_folded
from xfr_plugin.recognition.outputs import tensor_in
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["Pair", "PairAttribution"]

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])


@dataclass(frozen=True)
class Pair:
    """Faces to be explained, and how to find each one's partner.

    Attributes:
        images: M×C×H×W; the N probes, followed by the N references where these are images too.
        partners: unit embeddings of the partners, N×D, where the reference is given as an embedding.
        forward_args: further arguments of the forward function, for all M images.
    """

    images: Tensor
    partners: Tensor | None
    forward_args: tuple[Any, ...]

    def partners_of(self, embeddings: Tensor) -> Tensor:
        """Unit embeddings M×D of the partners, from the unit embeddings M×D of the images.

        Raises:
            InputError: those that were given have another length.
        """
        if self.partners is not None:
            return partner_units(self.partners, embeddings)
        return embeddings.roll(embeddings.shape[0] // 2, dims=0)

    def only(self, some: slice) -> Pair:
        """Some of the images, without partners unless all share one."""
        count, own = len(self.images), self.partners
        arguments = with_rows(self.forward_args, count, lambda rows: rows[some])
        return Pair(self.images[some], own if own is not None and len(own) == 1 else None, arguments)


class PairAttribution(Attribution):  # type: ignore[misc]  # Captum is not typed for mypy here
    """Attribution of a verification score, the cosine of two embeddings, to both faces of a pair.

    `attribute` takes `(probe, reference)`, two image batches, and returns a map of each; or the probe alone, with
    the reference's embedding as the first of `additional_forward_args`. Maps are signed and of the input's shape:
    the positive part shows what argues for a match, the negative part what argues against it. The map of the pixels
    is the sum over colours.

    Args:
        forward_func: maps images N×C×H×W (and further arguments) to embeddings N×D, normalised or not: a
            `Recognizer`, any module or function.
        threshold: decision threshold τ on the cosine; a recognizer's own, if left out.

    Raises:
        InputError: no threshold is given, and the forward function has none, or is none.
    """

    reads_both_faces = False
    """Whether the pixels of the reference are read, so that a probe against an embedding is explained less well, or
    not at all."""

    @classmethod
    def available_for(cls, recognizer: Recognizer) -> bool:
        """Whether all that the method needs ships for a recognizer; always, unless a class says otherwise."""
        return True

    def __init__(self, forward_func: Callable[..., Tensor], threshold: float | None = None) -> None:
        # rules and hooks would not reach into what `torch.compile` made of it
        super().__init__(getattr(forward_func, "_orig_mod", forward_func))
        if not callable(forward_func):
            raise InputError(
                f"a Recognizer or a function is explained, not {forward_func!r}: see xfr_plugin.load_recognizer"
            )
        if threshold is None:
            if not isinstance(forward_func, Recognizer):
                raise InputError("pass threshold=…: only a Recognizer brings its own")
            threshold = forward_func.threshold
        self.threshold = float(threshold)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether maps carry the factor input − baseline (Captum); these do not."""
        return False

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the recognizer's network whose feature maps `explain_prepared` takes, if they are known."""
        return ()

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # Captum, as above
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
    ) -> Inputs:
        """Attribute the score of each pair to its pixels.

        Args:
            inputs: `(probe, reference)`, two tensors N×C×H×W of equal shape; or the probe, a tensor or a
                tuple of one.
            target: None. A pair has one score; any other target raises, as Captum does for scalar outputs.
            additional_forward_args: for a probe alone, the reference embedding N×D (or D, for all), optionally
                followed by further arguments of the forward function; for a pair, those arguments only.

        Returns:
            Signed maps: a tensor or tuple like `inputs`, on its device and of its type.

        Raises:
            InputError: inputs of other shapes, or a probe without a reference embedding.
            AssertionError: a target was given (Captum's own check).
        """
        with own_modes():
            pair = _read_inputs(inputs, target, additional_forward_args)
            maps = self._attribute_pair(readied(self.forward_func, pair))
            return _like_inputs(maps, inputs)

    def explain_prepared(self, probes: Prepared, references: Prepared, *, errors: bool = False) -> Explained:
        """Attribute the scores of pairs of which something is known already.

        Methods that can use embeddings, feature maps or regions take them from there; others start from the images.

        Args:
            probes: N faces, all with an image or none.
            references: their partners, likewise.
            errors: also say how sure the evidence of each face's own named regions is, where the method can.

        Raises:
            InputError: the method cannot explain such pairs; see also `attribute`.
        """
        if probes.images is not None and references.images is not None:
            return Explained(*self.attribute((probes.images, references.images)))
        if probes.images is not None:
            return Explained(self.attribute(probes.images, None, references.units), None)
        if references.images is not None:  # the score is symmetric
            return Explained(None, self.attribute(references.images, None, probes.units))
        raise InputError(f"{self.get_name()} needs an image: there are only embeddings")

    @abstractmethod
    def _attribute_pair(self, pair: Pair) -> Tensor:
        """Signed maps M×C×H×W of the pair's images."""

    def _embed(self, pair: Pair, raw: bool = False) -> Callable[[Tensor], Tensor]:
        """Function from images to unit embeddings; where that changes nothing, with BatchNorm folded in.

        Args:
            pair: brings the further arguments of the forward function.
            raw: do not normalise; a recognizer is asked for its embedding before normalisation.
        """
        function = safely_folded(self.forward_func, pair.images, pair.forward_args)
        if raw and isinstance(function, Recognizer):
            function = function.features

        def embed(images: Tensor) -> Tensor:
            returned = function(images, *pair.forward_args)
            embeddings = tensor_in(returned, len(images), self.forward_func)
            return embeddings if raw else functional.normalize(embeddings, dim=1)

        return embed


def _read_inputs(inputs: Tensor | tuple[Tensor, ...], target: object, arguments: object | None) -> Pair:
    """Check the arguments of `attribute`."""
    images = inputs if isinstance(inputs, tuple) else (inputs,)
    pair = _read_pair(images, _format_additional_forward_args(arguments) or ())
    _refuse_target(len(images[0]), target)
    return pair


def _like_inputs(maps: Tensor, inputs: Inputs) -> Inputs:
    """Maps M×C×H×W in the form of the inputs: a tensor, or a tuple of each side's."""
    dtype = inputs[0].dtype if isinstance(inputs, tuple) else inputs.dtype
    sides = maps.detach().to(dtype).chunk(len(inputs) if isinstance(inputs, tuple) else 1)
    output: Inputs = _format_output(isinstance(inputs, tuple), tuple(side.contiguous() for side in sides))
    return output


def _refuse_target(count: int, target: object) -> None:
    """Let Captum's own check refuse any target but None, as for a model with one output."""
    try:
        _select_targets(torch.zeros(count), target)
    except IndexError as error:  # what its check makes of a list of tuples
        raise AssertionError("a pair has one score: leave the target out") from error


def readied(function: object, pair: Pair) -> Pair:
    """The pair with images as a function takes them: a recognizer's in its own type.

    Tools of Captum's add noise, so that pixels a little beyond 0…1 are let through.

    Raises:
        InputError: images of whole numbers, or that are not finite; pixels for a recognizer that reach above 16.
    """
    images = pair.images
    if not images.is_floating_point():
        raise InputError(f"images must be of floats, as their maps are, not {images.dtype}: divide by 255")
    if not bool(images.detach().isfinite().all()):
        raise InputError("images hold values that are not a number, or infinite")
    if not isinstance(function, Recognizer):
        return pair
    brightest = float(images.detach().amax()) if images.numel() else 0.0
    if brightest > _BRIGHTEST:
        raise InputError(f"{function.name} takes pixels in 0…1, got {brightest:.3g}: divide by 255")
    return pair if images.dtype == function.dtype else replace(pair, images=images.to(function.dtype))


_BRIGHTEST = 16.0
"""Captum's `NoiseTunnel` adds noise of σ = 1 unless it is told otherwise."""


def _read_pair(images: tuple[Tensor, ...], arguments: tuple[Any, ...]) -> Pair:
    if not 1 <= len(images) <= 2 or not all(isinstance(image, Tensor) for image in images):
        raise InputError("inputs must be a probe, or a tuple of probe and reference, as tensors")
    count = len(images[0])
    if count == 0:
        raise InputError("inputs hold no pair")
    if len(images) == 2:
        if images[0].shape != images[1].shape:
            shapes = f"{tuple(images[0].shape)} and {tuple(images[1].shape)}"
            raise InputError(f"probe and reference must have equal shapes, got {shapes}")
        return Pair(
            torch.cat(images), None, with_rows(arguments, count, lambda rows: torch.cat((rows, rows)))
        )
    if not arguments or not isinstance(arguments[0], Tensor):
        raise InputError(
            "a probe alone needs its reference embedding (N×D) as the first of additional_forward_args"
        )
    reference = torch.atleast_2d(arguments[0].detach())
    if reference.ndim != 2 or reference.shape[0] not in (1, count):
        raise InputError(f"the reference embedding must be {count}×D or D, got {tuple(reference.shape)}")
    if not bool(reference.isfinite().all() and reference.any(dim=1).all()):
        raise InputError("the reference embedding is zero, not a number or infinite, and so is like no face")
    probe = images[0].clone() if images[0].is_inference() else images[0]
    return Pair(probe, functional.normalize(reference, dim=1), arguments[1:])
