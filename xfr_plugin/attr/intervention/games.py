"""Games that the regions of a face play for the score: which coalitions are tried, and what they say of each player.

A *coalition* is the set of regions that a face keeps; the others are removed. Its value v(S) is the score against the
partner. What an index says of player r is linear in the values, so that an index is a list of coalitions and a
matrix. Of D numbers in place of a score, such as an embedding, the same matrix says what each region does to each
of them.

Exact forms try every coalition. Sampled ones draw coalitions in pairs, one and what it leaves out, and fit the values
by least squares in closed form (Lundberg and Lee, arXiv 1705.07874; Covert and Lee, arXiv 2012.01536).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

__all__ = [
    "MOST_EXACT",
    "Game",
    "leave_one_out",
    "sampled_semivalue",
    "sampled_shapley",
    "semivalue",
    "shapley",
]

MOST_EXACT = 9
"""So many players at most have all of their 2^R coalitions tried."""


@dataclass(frozen=True)
class Game:
    """An index of a game of R players.

    Attributes:
        kept: coalitions that have to be tried, m×R of bools; the whole face is not among them.
        readout: R×(m + 1): from the coalitions' values and, last, the whole face's, to the players' values.
    """

    kept: Tensor
    readout: Tensor

    @property
    def one_at_a_time(self) -> bool:
        """Whether no coalition lacks more than one player."""
        return bool((~self.kept).sum(dim=1).max() <= 1)

    def values(self, tried: Tensor, whole: Tensor) -> Tensor:
        """Values of the players R×… from what was read of the coalitions, m×…, and of the whole face."""
        every = torch.cat((tried, whole[None].to(tried)))
        values: Tensor = torch.tensordot(self.readout.to(every), every, dims=1)
        return values


def leave_one_out(players: int) -> Game:
    """What is lost with each player: φ_r = v(N) − v(N without r)."""
    one = torch.eye(players, dtype=torch.float64)
    return Game(kept=one == 0, readout=torch.cat((-one, torch.ones(players, 1, dtype=torch.float64)), dim=1))


def shapley(players: int) -> Game:
    """Shapley values from all coalitions: what a player brings, averaged over the orders in which players come."""
    return _exact(players, [1 / (players * comb(players - 1, size)) for size in range(players)])


def semivalue(players: int, p: float = 0.5) -> Game:
    """What a player brings where each of the others is there with probability p (Banzhaf at 1/2).

    Weighted Banzhaf values (Li and Yu, arXiv 2306.13885). They do not sum to v(N) − v(∅).
    """
    return _exact(players, [p**size * (1 - p) ** (players - 1 - size) for size in range(players)])


def sampled_shapley(players: int, samples: int, seed: int) -> Game:
    """Shapley values from so many drawn coalitions, the empty one among them; they sum to v(N) − v(∅).

    Sizes are drawn as the Shapley kernel weighs them, so that the fit itself is unweighted.
    """
    if players < 2:
        return shapley(players)
    random = torch.Generator().manual_seed(seed)
    sizes = torch.arange(1, players)
    drawn = sizes[
        torch.multinomial(1 / (sizes * (players - sizes)).double(), samples // 2, True, generator=random)
    ]
    order = torch.rand(len(drawn), players, generator=random).argsort(dim=1).argsort(dim=1)
    half = order < drawn[:, None]
    kept = torch.cat((half, ~half, torch.zeros(1, players, dtype=torch.bool)))
    return Game(kept, _constrained_fit(kept[:-1].double()))


def sampled_semivalue(players: int, samples: int, seed: int, p: float = 0.5) -> Game:
    """Semivalues from so many drawn coalitions: slopes of the linear function nearest to the game."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.rand(samples, players, generator=random) < p
    whole = drawn.all(dim=1)
    rows = torch.cat((drawn.double(), torch.ones(samples, 1, dtype=torch.float64)), dim=1)
    slopes = torch.linalg.pinv(rows)[:-1]
    return Game(
        drawn[~whole], torch.cat((slopes[:, ~whole], slopes[:, whole].sum(dim=1, keepdim=True)), dim=1)
    )


def _exact(players: int, weights: list[float]) -> Game:
    """The index that weighs what a player brings to a coalition by the coalition's size."""
    every = torch.zeros(1, 0, dtype=torch.bool)
    for _ in range(players):
        with_, without = (torch.full((len(every), 1), value) for value in (True, False))
        every = torch.cat((torch.cat((every, without), dim=1), torch.cat((every, with_), dim=1)))
    table = torch.tensor([*weights, 0.0], dtype=torch.float64)
    sizes = every.sum(dim=1)
    brought, missing = table[(sizes - 1).clamp_min(0)], -table[sizes]
    readout = torch.where(every.T, brought, missing)
    return Game(every[:-1], readout)  # the whole face comes last


def _constrained_fit(kept: Tensor) -> Tensor:
    """From v of coalitions m×R, then v(∅), then v(N), the values R that fit best and sum to v(N) − v(∅)."""
    players = kept.shape[1]
    inverse = torch.linalg.pinv(kept.T @ kept)
    ones = torch.ones(players, dtype=torch.float64)
    even = inverse @ ones / (ones @ inverse @ ones)
    free = (torch.eye(players, dtype=torch.float64) - torch.outer(even, ones)) @ inverse @ kept.T
    return torch.cat((free, (-free.sum(dim=1) - even)[:, None], even[:, None]), dim=1)
