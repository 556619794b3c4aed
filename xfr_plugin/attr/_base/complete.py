"""Pair attributions whose maps sum to the evidence: the decision margin, spread over the face."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, overload

from torch import Tensor

from xfr_plugin.attr._base.pair import Inputs, Pair, PairAttribution, _like_inputs, _read_inputs, readied
from xfr_plugin.base.captum import log_usage
from xfr_plugin.base.modes import own_modes
from xfr_plugin.errors import InputError

__all__ = ["CompletePairAttribution", "largest_miss"]


class CompletePairAttribution(PairAttribution):
    """A `PairAttribution` with a convergence delta, where its options leave it one."""

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
            inputs, target, additional_forward_args: see `PairAttribution.attribute`.
            return_convergence_delta: also return by how much the sum of each pair's map misses its evidence (N),
                for a pair that of the face where it misses more.

        Raises:
            InputError: see `PairAttribution.attribute`; a delta of maps that do not have one.
        """
        if return_convergence_delta and not self.has_convergence_delta():
            raise InputError(f"with these options the maps of {self.get_name()} have no convergence delta")
        with own_modes():
            pair = _read_inputs(inputs, target, additional_forward_args)
            pair = readied(self.forward_func, pair)
            if not return_convergence_delta:
                return _like_inputs(self._attribute_pair(pair), inputs)
            maps, evidence = self._maps_and_evidence(pair)
        output = _like_inputs(maps, inputs)
        return output, largest_miss(maps.detach(), evidence, len(inputs) if isinstance(inputs, tuple) else 1)

    @abstractmethod
    def _maps_and_evidence(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Signed maps M×C×H×W of the pair's images, and what each should sum to, M."""

    def _attribute_pair(self, pair: Pair) -> Tensor:
        return self._maps_and_evidence(pair)[0]


def largest_miss(maps: Tensor, evidence: Tensor, sides: int) -> Tensor:
    """By how much the maps M×C×H×W of one or two sides miss their evidence (M), of each pair's side the larger, N."""
    by_face = (maps.flatten(1).sum(dim=1) - evidence.detach()).view(sides, -1)
    worst = by_face.abs().argmax(dim=0, keepdim=True)
    return by_face.gather(0, worst)[0]
