"""Shapley values against all coalitions written out, and against shapiq; effects on embeddings; interactions."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.region_loops import cosine_of, face_net, faces
from numpy.typing import NDArray
from torch import Tensor, nn

from xfr_plugin import Recognizer
from xfr_plugin.attr import LeaveOneOut, PairShapley, ShapleyInteractions, interactions, region_effects
from xfr_plugin.attr.intervention.games import (
    Game,
    leave_one_out,
    sampled_semivalue,
    sampled_shapley,
    semivalue,
    shapley,
)
from xfr_plugin.errors import InputError

TAU = 0.3
Images = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def pair() -> Images:
    return faces(1)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return face_net()


class Table:
    """A game of R players with random values."""

    def __init__(self, players: int, seed: int = 0) -> None:
        self.players = players
        self.values = np.random.default_rng(seed).normal(size=2**players)

    def __call__(self, coalition: tuple[int, ...]) -> float:
        return float(self.values[sum(1 << player for player in coalition)])

    def of(self, game: Game) -> NDArray[np.float64]:
        """What an index says of the players."""
        tried = [self(tuple(np.flatnonzero(row))) for row in game.kept.numpy()]
        whole = torch.tensor(self(tuple(range(self.players))), dtype=torch.float64)
        return game.values(torch.tensor(tried, dtype=torch.float64), whole).numpy()

    def brought(self, player: int, weights: Any) -> float:
        """What a player brings, weighed by the size of the coalition that it comes to."""
        others = [other for other in range(self.players) if other != player]
        return sum(
            weights(size) * (self((*coalition, player)) - self(coalition))
            for size in range(self.players)
            for coalition in itertools.combinations(others, size)
        )


@pytest.mark.parametrize("players", [1, 2, 5, 9])
def test_exact_shapley_values_are_averages_over_all_orders(players: int) -> None:
    table = Table(players)

    def weight(size: int) -> float:
        return math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)

    expected = [table.brought(player, weight) for player in range(players)]
    np.testing.assert_allclose(table.of(shapley(players)), expected, atol=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.85])
def test_semivalues_weigh_coalitions_by_the_chance_of_their_players(p: float) -> None:
    table = Table(6)
    expected = [table.brought(player, lambda size: p**size * (1 - p) ** (5 - size)) for player in range(6)]
    np.testing.assert_allclose(table.of(semivalue(6, p)), expected, atol=1e-12)


def test_leaving_one_out_is_the_loss_from_the_whole() -> None:
    table = Table(4)
    whole = table((0, 1, 2, 3))
    expected = [whole - table(tuple(set(range(4)) - {player})) for player in range(4)]
    np.testing.assert_allclose(table.of(leave_one_out(4)), expected, atol=1e-12)


def test_shapiq_computes_the_same_exact_values() -> None:
    shapiq = pytest.importorskip("shapiq", reason="shapiq is not installed")
    table = Table(6, seed=3)

    def value(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.array([table(tuple(np.flatnonzero(row))) for row in coalitions])

    for name, game in (("SV", shapley(6)), ("BV", semivalue(6, 0.5))):
        theirs = shapiq.ExactComputer(n_players=6, game=value)(name, order=1)
        np.testing.assert_allclose(table.of(game), theirs.get_n_order_values(1), atol=1e-9)


def test_drawn_shapley_values_sum_as_exact_ones_and_come_near_them() -> None:
    table = Table(8)
    exact = table.of(shapley(8))
    errors = []
    for samples in (64, 4096):
        drawn = np.stack([table.of(sampled_shapley(8, samples, seed)) for seed in range(8)])
        np.testing.assert_allclose(drawn.sum(axis=1), exact.sum(), atol=1e-9)
        errors.append(np.sqrt(np.square(drawn - exact).mean()))
    assert errors[1] < errors[0] / 4  # eight would be the root of 64


def test_drawn_semivalues_come_near_exact_ones() -> None:
    table = Table(5)
    drawn = np.mean([table.of(sampled_semivalue(5, 2048, seed, 0.7)) for seed in range(16)], axis=0)
    np.testing.assert_allclose(drawn, table.of(semivalue(5, 0.7)), atol=0.05)


def test_a_drawn_game_of_additive_values_is_exact() -> None:
    """Whatever is drawn, least squares find the players' own values where coalitions are their sums."""
    table = Table(7)
    own = np.random.default_rng(1).normal(size=7)
    sums = [sum(own[p] for p in range(7) if code >> p & 1) for code in range(2**7)]
    table.values = np.array(sums)
    np.testing.assert_allclose(table.of(sampled_shapley(7, 40, 0)), own, atol=1e-9)
    np.testing.assert_allclose(table.of(sampled_semivalue(7, 40, 0)), own, atol=1e-9)


def test_values_of_a_pair_sum_to_what_all_regions_bring(pair: Images, network: nn.Module) -> None:
    attribution = PairShapley(network, TAU, donors=1, level="none")
    answer = attribution.regional(pair)[0][0]
    (effects,) = region_effects(attribution, pair[0])
    partner = nn.functional.normalize(network(pair[1]), dim=1)[0]
    score = cosine_of(network)(pair[0][0], pair[1][0])
    assert float(answer.evidence.sum()) == pytest.approx(score - float(effects.empty @ partner), abs=1e-9)
    np.testing.assert_allclose(answer.evidence, effects.values(partner), atol=1e-9)


def test_evidence_sums_to_the_margin(pair: Images, network: nn.Module) -> None:
    maps, delta = PairShapley(network, TAU, donors=1).attribute(pair, return_convergence_delta=True)
    margin = cosine_of(network)(pair[0][0], pair[1][0]) - TAU
    assert float(maps[0].sum()) == pytest.approx(margin, abs=1e-9)
    assert float(delta.abs().max()) < 1e-9


def test_regions_that_nothing_is_seen_of_are_dummies(pair: Images) -> None:
    def upper(images: Tensor) -> Tensor:
        return images[:, :, :18, ::4].flatten(1) - 0.4

    answer = PairShapley(upper, TAU, donors=1, level="none").regional(pair)[0][0]
    values = dict(zip(answer.regions.names, answer.evidence.tolist(), strict=True))
    assert abs(values["chin"]) + abs(values["mouth"]) < 1e-12
    assert abs(values["forehead"]) > 1e-3


@pytest.mark.parametrize("players", ["regions", "grid7", "superpixels"])
def test_more_players_are_drawn_for(players: Any, pair: Images, network: nn.Module) -> None:
    attribution = PairShapley(network, TAU, players=players, donors=2, samples=24)
    maps, again = attribution.attribute(pair), attribution.attribute(pair)
    margin = cosine_of(network)(pair[0][0], pair[1][0]) - TAU
    assert float(maps[0].sum()) == pytest.approx(margin, abs=1e-6)
    assert torch.equal(maps[0], again[0])
    other = PairShapley(network, TAU, players=players, donors=2, samples=24, seed=1).attribute(pair)
    assert not torch.allclose(maps[0], other[0])
    assert attribution.regional(pair)[0][0].errors.isfinite().all()


def test_interactions_are_what_all_coalitions_of_both_faces_say(pair: Images, network: nn.Module) -> None:
    """Against V = a bᵀ of all 2^R × 2^R coalitions, and the operator of Shapley values on both sides, written out."""
    attribution = PairShapley(network, TAU, donors=1)
    matrix = ShapleyInteractions(attribution).matrix(*pair)[0]
    sides = []
    for images, first in ((pair[0], 0), (pair[1], 1)):
        seen: list[Tensor] = []
        spy = PairShapley(lambda faces, seen=seen: _remembered(network, faces, seen), TAU, donors=1)
        region_effects(spy, images, donors_from=first)
        units = nn.functional.normalize(torch.cat(seen), dim=1)
        sides.append(
            torch.cat((units[1:], units[:1]))
        )  # the whole face is read first, and is the last coalition
    scores = sides[0] @ sides[1].T
    players = round(math.log2(len(scores)))
    operator = shapley(players).readout
    expected = operator @ scores @ operator.T
    shown = torch.from_numpy(attribution._players(pair[0], None)[0].present)
    other = torch.from_numpy(attribution._players(pair[1], None)[0].present)
    np.testing.assert_allclose(matrix[shown][:, other], expected, atol=1e-9)
    corners = scores[-1, -1] - scores[-1, 0] - scores[0, -1] + scores[0, 0]
    assert float(matrix.sum()) == pytest.approx(float(corners), abs=1e-9)


def _remembered(network: nn.Module, images: Tensor, seen: list[Tensor]) -> Tensor:
    embedded: Tensor = network(images)
    seen.append(embedded)
    return embedded


def test_swapping_the_faces_transposes_the_interactions(pair: Images, network: nn.Module) -> None:
    game = LeaveOneOut(network, TAU, donors=1)
    (a,), (b,) = (region_effects(game, images) for images in pair)
    assert torch.allclose(interactions(a, b), interactions(b, a).T, atol=1e-12)


def test_a_gallery_is_one_product(pair: Images, network: nn.Module) -> None:
    game = PairShapley(network, TAU, donors=1, level="none")
    (effects,) = region_effects(game, pair[0])
    gallery = nn.functional.normalize(torch.randn(5, 7, dtype=torch.float64), dim=1)
    values = effects.values(gallery)
    assert values.shape == (5, 8)
    one = game.regional(pair[0], additional_forward_args=gallery[3:4])[0][0]
    np.testing.assert_allclose(values[3], one.evidence, atol=1e-9)


class Counted(nn.Module):
    """Counts the faces that it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.count = face_net().float(), 0

    def forward(self, images: Tensor) -> Tensor:
        self.count += len(images)
        embedded: Tensor = self.network(images)
        return embedded


def test_effects_are_kept_by_what_they_follow_from(tmp_path: Path, pair: Images) -> None:
    counted = Counted()
    recognizer = Recognizer(counted, input_size=(56, 48), threshold=TAU)
    images = pair[0].float()
    game = PairShapley(recognizer, donors=1, samples=16)
    (fresh,) = region_effects(game, images, cache=tmp_path)
    used = counted.count
    (kept,) = region_effects(game, images, cache=tmp_path)
    assert counted.count == used
    assert torch.equal(fresh.effects, kept.effects)
    assert torch.equal(fresh.whole, kept.whole)
    assert kept.players == fresh.players
    for other in (
        region_effects(PairShapley(recognizer, donors=1, samples=16, seed=1), images, cache=tmp_path),
        region_effects(game, images * 0.9, cache=tmp_path),
        region_effects(game, images, donors_from=1, cache=tmp_path),
    ):
        assert not torch.equal(other[0].effects, fresh.effects)
    assert len(list(tmp_path.iterdir())) == 4
    next(tmp_path.iterdir()).write_bytes(b"half a file")
    assert torch.equal(region_effects(game, images, cache=tmp_path)[0].effects, fresh.effects)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "owen"}, "index must be"),
        ({"index": 1.0}, "index must be"),
        ({"index": True}, "index must be"),
        ({"samples": 1}, "samples"),
        ({"players": "eyes"}, "players must be"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, network: nn.Module) -> None:
    with pytest.raises(InputError, match=message):
        PairShapley(network, TAU, **options)


def test_effects_need_embeddings(pair: Images, network: nn.Module, tmp_path: Path) -> None:
    def score(probes: Tensor, references: Tensor) -> Tensor:
        return torch.cosine_similarity(network(probes), network(references))

    with pytest.raises(InputError, match="need embeddings"):
        region_effects(PairShapley.from_scores(score, TAU), pair[0])
    with pytest.raises(InputError, match="for recognizers only"):
        region_effects(PairShapley(network, TAU, donors=1), pair[0], cache=tmp_path)
