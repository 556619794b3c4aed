"""Pair attributions whose maps sum to the evidence: the decision margin, spread over the face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar, overload

import torch
from torch import Tensor

from xfr_plugin.attr._base.pair import PairAttribution
from xfr_plugin.base.captum import log_usage
from xfr_plugin.errors import InputError

__all__ = ["CompletePairAttribution"]

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])


class CompletePairAttribution(PairAttribution):
    """A `PairAttribution` with a convergence delta, where its options leave it one.

    Subclasses set `_evidence`, what each face's map should sum to (M), when they make the maps.
    """

    def __init__(self, forward_func: Callable[..., Tensor], threshold: float | None = None) -> None:
        super().__init__(forward_func, threshold)
        self._evidence: Tensor | None = None

    def has_convergence_delta(self) -> bool:
        """Whether the maps should sum to the evidence."""
        return True

    @overload
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
        *,
        return_convergence_delta: Literal[True],
    ) -> tuple[Inputs, Tensor]: ...

    @overload
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
        return_convergence_delta: Literal[False] = False,
    ) -> Inputs: ...

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # Captum is not typed for mypy here
    def attribute(
        self,
        inputs: Inputs,
        target: None = None,
        additional_forward_args: object | None = None,
        return_convergence_delta: bool = False,
    ) -> Inputs | tuple[Inputs, Tensor]:
        """Attribute the score of each pair to its pixels; see `PairAttribution.attribute`.

        Args:
            inputs: see `PairAttribution.attribute`.
            target: see `PairAttribution.attribute`.
            additional_forward_args: see `PairAttribution.attribute`.
            return_convergence_delta: also return by how much the sum of each pair's map misses its evidence (N),
                for a pair that of the face where it misses more.

        Raises:
            InputError: see `PairAttribution.attribute`; a delta of maps that do not have one.
        """
        if return_convergence_delta and not self.has_convergence_delta():
            raise InputError(f"with these options the maps of {self.get_name()} have no convergence delta")
        maps: Inputs = PairAttribution.attribute.__wrapped__(self, inputs, target, additional_forward_args)
        if not return_convergence_delta:
            return maps
        return maps, self._delta(maps if isinstance(maps, tuple) else (maps,))

    def _delta(self, sides: tuple[Tensor, ...]) -> Tensor:
        assert self._evidence is not None  # set with the maps
        missing = torch.cat(sides).flatten(1).sum(1) - self._evidence
        by_face = missing.view(len(sides), -1)
        worst = by_face.abs().argmax(dim=0, keepdim=True)
        return by_face.gather(0, worst)[0]
