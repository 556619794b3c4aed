"""Shapley values of the regions of a pair, and how much each of one face brings together with each of the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.regional import RegionsFrom
from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.intervention.effects import interactions, region_effects
from xfr_plugin.attr.intervention.games import (
    MOST_EXACT,
    Game,
    sampled_semivalue,
    sampled_shapley,
    semivalue,
    shapley,
)
from xfr_plugin.attr.intervention.level import Level
from xfr_plugin.attr.intervention.players import Players
from xfr_plugin.attr.intervention.removal import Operator
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.errors import InputError

__all__ = ["PairShapley", "ShapleyInteractions"]

_LEAST = 4


@attribution_method(
    name="shapley",
    title="Shapley values of regions",
    paper="ours, after Shapley, 1953, and Lundberg and Lee, arXiv 1705.07874",
    year=2026,
    needs="scores",
    cost="2 + 2·K·255 forward",
    relative_cost=1025,
    batchable=True,
    caveat="its values are exact for faces whose other regions are those of faces of nobody, which is a choice: "
    "other operators give other values",
    trial_options={"donors": 1, "samples": 16},
)
class PairShapley(RegionIntervention):
    """Regions argue by what they bring to the score, averaged over which others are there; Σ S = s − τ.

    The value v(S) of a coalition is the score against the whole partner when only the regions in S are the face's
    own, and the rest are those of K faces of nobody. φ sums to s − v(∅), and v(∅) is near 0. As in `LeaveOneOut`,
    evidence is φ_r − (τ − v(∅))·w_r with the shares w_r of genuine pairs.

    With up to nine players all 2^R coalitions are tried, and the values are exact; for more, coalitions are drawn in
    pairs, others for each donor, and fitted by least squares; the standard error then holds both.
    Embeddings of coalitions do not depend on the partner: see `RegionEffects`, which computes them once a face.

    Args:
        forward_func, threshold: see `PairAttribution`.
        players: `coarse` regions, eight; the named `regions`; cells of a `grid7` or `grid14`; or `superpixels`.
        index: `shapley`; `banzhaf`; or the probability (0…1) with which each other player is there.
        samples: coalitions drawn for a donor where they are not all tried; forces drawing, if given.
        regions, operator, donors, population, level: see `LeaveOneOut`.
        seed: of the draw.

    Raises:
        InputError: an unknown option.

    Example:
        >>> shapley = PairShapley(recognizer, threshold=0.3, donors=1, samples=32)
        >>> probe_map, reference_map = shapley.attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    shares_under = "shapley"

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        players: Players = "coarse",
        index: str | float = "shapley",
        samples: int | None = None,
        regions: RegionsFrom = "found",
        operator: Operator = "population",
        donors: int = 2,
        population: Tensor | None = None,
        level: Level = "threshold",
        seed: int = 0,
    ) -> None:
        super().__init__(
            forward_func,
            threshold,
            players=players,
            regions=regions,
            operator=operator,
            donors=donors,
            population=population,
            level=level,
        )
        self.probability = _probability(index)
        self.samples = samples if samples is None else checked_at_least("samples", samples, _LEAST)
        self.seed = seed

    def settings(self) -> dict[str, object]:
        """See `RegionIntervention.settings`."""
        return super().settings() | {"p": self.probability, "samples": self.samples, "seed": self.seed}

    def _game(self, players: int, donor: int) -> Game:
        p = self.probability
        if players <= MOST_EXACT and self.samples is None:
            return shapley(players) if p is None else semivalue(players, p)
        samples = self.samples or max(256, 4 * players)
        seed = self.seed + 1000 * donor
        if p is None:
            return sampled_shapley(players, samples, seed)
        return sampled_semivalue(players, samples, seed, p)


def _probability(index: str | float) -> float | None:
    """Of a semivalue; None for Shapley's."""
    if index == "shapley":
        return None
    if index == "banzhaf":
        return 0.5
    if isinstance(index, bool) or not isinstance(index, (int, float)) or not 0 < index < 1:
        raise InputError(
            f"index must be 'shapley', 'banzhaf' or a probability between 0 and 1, got {index!r}"
        )
    return float(index)


class ShapleyInteractions:
    """How much each region of one face brings to the score together with each region of the other.

    v(S, T) is the expected score when only the regions S of the probe and T of the reference are known, the others
    being those of faces of nobody, different ones for the two faces. I = M V Mᵀ, with M the operator of the index on
    each side and V all coalitions' scores; since a score is a cosine, V is a product of embeddings, and I is E_A
    E_Bᵀ of the regions' effects: exact for any network that gives embeddings, where BiLRP needs its layers and rules.

    Args:
        attribution: the game of each side; that of `PairShapley` with its defaults, if a recognizer is given.

    Raises:
        InputError: a function that gives scores alone.

    Example:
        >>> matrix = ShapleyInteractions(PairShapley(recognizer, donors=1, samples=32)).matrix(probe, reference)
        >>> matrix.shape  # of eight regions each
        torch.Size([1, 8, 8])
    """

    def __init__(self, attribution: RegionIntervention | Callable[..., Tensor]) -> None:
        if not isinstance(attribution, RegionIntervention):
            attribution = PairShapley(attribution, threshold=0.0)
        self.attribution = attribution

    def matrix(self, probes: Tensor, references: Tensor) -> Tensor:
        """N×R×R of N pairs of faces N×C×H×W; see `interactions` for what it sums to."""
        own = region_effects(self.attribution, probes)
        other = region_effects(self.attribution, references, donors_from=self.attribution.donors)
        return torch.stack([interactions(a, b) for a, b in zip(own, other, strict=True)])
