"""A score for Captum: the cosine of a probe's embedding with its reference's, one number for each pair.

Captum attributes one scalar of each example. An embedding model gives D of them, and a verification score depends on
two faces. `CosineHead` closes the gap, so that every method of Captum explains a pair in one line::

    from captum.attr import IntegratedGradients
    from xfr_plugin.attr import CosineHead

    maps = IntegratedGradients(CosineHead(model)).attribute(probe, additional_forward_args=reference_embedding)
    maps = IntegratedGradients(CosineHead(model)).attribute((probe, reference))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.base.options import checked_choice
from xfr_plugin.base.rows import one_row, with_rows
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.outputs import tensor_in
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["CosineHead", "HeadOutput", "ReferenceKind"]

HeadOutput: TypeAlias = Literal["cosine", "margin", "distance"]
"""What the head returns: the cosine s; the decision margin s − τ; or the cosine distance 1 − s."""

ReferenceKind: TypeAlias = Literal["auto", "embedding", "image"]
"""What a reference is. `auto`: an image if it has as many dimensions as the probe, else an embedding."""


class CosineHead(nn.Module):
    """An embedding model with a verification score on top: (probe, reference) → N scores.

    The reference reaches the head in one of three ways:

    - as an embedding in `additional_forward_args`, N×D: the usual way;
    - as a second image input, N×C×H×W: both faces are attributed. Note what a baseline then means: a method that
      replaces both faces by one baseline compares it with itself, so it starts from a cosine of 1 and its
      attributions sum to s − 1. Attribute each face against the other's embedding to avoid that;
    - bound once, with `reference=`: one reference that serves all probes. (Captum repeats the rows of
      `additional_forward_args` with those of the inputs, so one row for several probes does not survive there.)

    Two images go through the model in one batch, in the order probe 0, reference 0, probe 1, …: so each module is
    used once, as DeepLift demands, and its pairing of inputs with baselines holds. A layer attribution of an image
    pair therefore has 2N rows in this order. DeepLift treats the normalisation of the embedding by its gradient, so
    its attributions do not sum exactly to the difference of the scores.

    Args:
        model: maps images N×… (and further arguments) to embeddings N×D, normalised or not: a `Recognizer`, any
            module or function. As a module it is a submodule of the head (`head.model`), with its layers.
        reference: one embedding, D or 1×D, to compare all probes with; then `forward` takes no reference.
        output: see `HeadOutput`. Margin and distance are shifts (and a change of sign) of the cosine: the maps
            differ from the cosine's by their sign at most.
        threshold: τ of the margin, on the cosine; a recognizer's own, if left out.
        reference_kind: see `ReferenceKind`; only needed where a probe has as many dimensions as an embedding.

    Raises:
        InputError: an unknown option, a margin without a threshold, or more than one bound reference.
    """

    reference: Tensor | None

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        reference: Tensor | None = None,
        output: HeadOutput = "cosine",
        threshold: float | None = None,
        reference_kind: ReferenceKind = "auto",
    ) -> None:
        super().__init__()
        self.model = model
        self.output = checked_choice("output", output, "cosine", "margin", "distance")
        self.threshold = _threshold_for(output, threshold, model)
        self.reference_kind = checked_choice("reference_kind", reference_kind, "auto", "embedding", "image")
        self.register_buffer("reference", _bound(reference), persistent=False)
        # not self.train(…): that would set the modes of the model's own modules, which may differ
        self.training = isinstance(model, nn.Module) and model.training

    def forward(self, probe: Tensor, *arguments: Any) -> Tensor:
        """Scores of the pairs.

        Args:
            probe: images N×….
            *arguments: the reference (embedding N×D, 1×D or D, or images like the probe) unless it is bound,
                then further arguments of the model.

        Returns:
            N scores: the cosine in −1…1, the margin in −1−τ…1−τ, or the distance in 0…2.

        Raises:
            InputError: no reference, or one of another shape.
        """
        reference, further = self._split(arguments)
        if self._is_image(probe, reference):
            embedding, partner = self._embed_both(probe, reference, further)
        else:
            embedding = tensor_in(self.model(probe, *further), len(probe), self.model)
            partner = _rows(reference, embedding)
        units = functional.normalize(embedding, dim=1), functional.normalize(partner, dim=1)
        return self._scored((units[0] * units[1]).sum(dim=1))

    def _split(self, arguments: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        if self.reference is not None:
            return self.reference, arguments
        if not arguments or not isinstance(arguments[0], Tensor):
            raise InputError(
                "the head has nothing to compare with: pass additional_forward_args=reference_embedding, "
                "inputs=(probe, reference), or CosineHead(model, reference=embedding)"
            )
        return arguments[0], arguments[1:]

    def _is_image(self, probe: Tensor, reference: Tensor) -> bool:
        if self.reference is not None or self.reference_kind == "embedding":
            return False
        if self.reference_kind == "auto" and reference.ndim != probe.ndim:
            return False
        if reference.shape != probe.shape:
            shapes = f"{tuple(probe.shape)} and {tuple(reference.shape)}"
            raise InputError(f"probe and reference images must have equal shapes, got {shapes}")
        return True

    def _embed_both(
        self, probe: Tensor, reference: Tensor, further: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        """Embed probes and references in one batch, in turn, see the class."""
        count = len(probe)
        both = torch.stack((probe, reference), dim=1).flatten(0, 1)
        doubled = with_rows(further, count, lambda rows: rows.repeat_interleave(2, dim=0))
        embeddings = tensor_in(self.model(both, *doubled), len(both), self.model)
        return embeddings[0::2], embeddings[1::2]

    def _scored(self, cosine: Tensor) -> Tensor:
        if self.output == "margin":
            return cosine - self.threshold
        return 1 - cosine if self.output == "distance" else cosine


def _bound(reference: Tensor | None) -> Tensor | None:
    if reference is None:
        return None
    row: Tensor = torch.atleast_2d(reference.detach())
    if row.ndim != 2 or len(row) != 1:
        raise InputError(
            f"one embedding (D or 1×D) can be bound, got {tuple(reference.shape)}: pass several as "
            "additional_forward_args, one for each probe"
        )
    return row


def _threshold_for(output: HeadOutput, threshold: float | None, model: Callable[..., Tensor]) -> float:
    if output != "margin":
        return 0.0
    if threshold is None:
        if not isinstance(model, Recognizer):
            raise InputError("pass threshold=… for the margin: only a Recognizer brings its own")
        threshold = model.threshold
    return float(threshold)


def _rows(reference: Tensor, embedding: Tensor) -> Tensor:
    """The reference embeddings N×D, one for each embedding N×D."""
    count, channels = embedding.shape
    rows: Tensor = one_row(torch.atleast_2d(reference), channels) if reference.ndim == 1 else reference
    if rows.ndim != 2 or rows.shape[1] != channels or rows.shape[0] not in (1, count):
        raise InputError(
            f"the reference embedding must be {count}×{channels}, got {tuple(reference.shape)}; one embedding "
            "for several probes is best bound: CosineHead(model, reference=embedding)"
        )
    return rows.to(embedding).expand(count, -1)
