"""The matrix of channels × regions and what a face dwells on: against loops, and what their figures promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny_decoder import make_decoder
from scipy import stats
from torch import Tensor, nn

from xfr_plugin.channels import (
    ChannelRegions,
    Dwelling,
    channel_regions,
    decoded_changes,
    dwelling,
    normalised_maps,
    region_shares,
    sized_maps,
)
from xfr_plugin.channels.dwelling import channel_weights
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.faces.regions import REGION_NAMES, RegionMap, template_regions
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.reconstruction import Decoder, find_decoder


@pytest.fixture
def decoder(recognizer: Recognizer) -> Decoder:
    return make_decoder(recognizer).requires_grad_(False)


@pytest.fixture
def units() -> Tensor:
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return nn.functional.normalize(values, dim=1)


def looped_shares(decoder: Decoder, units: Tensor, regions: RegionMap) -> np.ndarray:
    """Shares P×D×R in the plainest words: ablate, decode, enlarge, count pixel by pixel."""
    shares = np.zeros((len(units), 6, len(regions.names)))
    for person, unit in enumerate(units):
        for channel in range(6):
            ablated = unit.clone()
            ablated[channel] = 0
            change = (decoder(unit[None]) - decoder(ablated[None])).abs().mean(dim=1, keepdim=True)
            large = nn.functional.interpolate(change, regions.size, mode="bilinear")[0, 0]
            for row in range(regions.size[0]):
                for column in range(regions.size[1]):
                    shares[person, channel, regions.labels[row, column]] += float(large[row, column])
    return shares / shares.sum(axis=2, keepdims=True)


def test_shares_are_those_of_a_loop(decoder: Decoder, units: Tensor) -> None:
    regions = template_regions((24, 20))
    expected = looped_shares(decoder, units[:2], regions)
    np.testing.assert_allclose(region_shares(decoder, units[:2], regions, batch_size=4), expected, rtol=1e-9)
    matrix = channel_regions(decoder, units[:2])
    assert matrix.people is not None
    np.testing.assert_allclose(matrix.people, expected, rtol=1e-9)
    np.testing.assert_allclose(matrix.shares, expected.mean(axis=0), rtol=1e-9)


def test_atlas_gives_the_matrix_without_people(decoder: Decoder) -> None:
    matrix = channel_regions(decoder)
    regions = template_regions((24, 20))
    large = sized_maps(decoder.atlas, (24, 20)).numpy()
    for channel in range(6):
        totals = regions.totals(large[channel])
        np.testing.assert_allclose(matrix.shares[channel], list(totals.values()), rtol=1e-9)
    assert matrix.regions == regions.names
    np.testing.assert_allclose(matrix.areas, np.array(list(regions.areas().values())) / 480)
    np.testing.assert_allclose(matrix.shares.sum(axis=1), 1)
    with pytest.raises(InputError, match="at least two"):
        matrix.intervals()
    assert all(entry.interval is None and not entry.distinct for entry in matrix.top("nose"))


def test_top_ranks_by_lift_and_compares_with_area_and_average(decoder: Decoder, units: Tensor) -> None:
    matrix = channel_regions(decoder, units)
    column = matrix.regions.index("nose")
    found = matrix.top("nose", 3)
    order = np.argsort(-matrix.shares[:, column])[:3]
    assert [entry.channel for entry in found] == order.tolist()
    low, high = matrix.intervals()
    for entry in found:
        share = matrix.shares[entry.channel, column]
        assert entry.share == pytest.approx(share)
        assert entry.density == pytest.approx(share / matrix.areas[column])
        assert entry.lift == pytest.approx(share / matrix.shares[:, column].mean())
        assert entry.interval == (low[entry.channel, column], high[entry.channel, column])
        assert entry.interval[0] < entry.lift < entry.interval[1]
        assert entry.distinct == (entry.interval[0] > 1)
    with pytest.raises(UnknownNameError, match="did you mean 'nose'"):
        matrix.top("noes")


def test_intervals_hold_for_all_channels_at_once() -> None:
    """Simulated people with known shares: the true lifts of all channels lie inside in about 95 % of runs."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.1, 0.4, 20)
    lifts = truth / truth.mean()
    held = 0
    for _ in range(300):
        common = rng.normal(0, 0.05, (40, 1))  # what moves all channels of a person must not widen intervals
        nose = truth * (1 + common) + rng.normal(0, 0.03, (40, 20))
        people = np.stack([nose, 1 - nose], axis=-1)
        matrix = ChannelRegions(("nose", "rest"), np.array([0.2, 0.8]), people.mean(axis=0), people)
        low, high = matrix.intervals()
        held += bool(((low[:, 0] < lifts) & (lifts < high[:, 0])).all())
    assert stats.binomtest(held, 300, 0.95).pvalue > 0.01


def test_spread_is_over_people(decoder: Decoder, units: Tensor) -> None:
    matrix = channel_regions(decoder, units)
    assert matrix.people is not None
    assert matrix.people.shape == (5, 6, len(REGION_NAMES))
    np.testing.assert_allclose(matrix.spread(0.5)[0], np.median(matrix.people, axis=0))
    np.testing.assert_allclose(matrix.deviation(), np.std(matrix.people, axis=0, ddof=1))


def test_regions_can_be_joined(decoder: Decoder, units: Tensor) -> None:
    matrix = channel_regions(decoder, units)
    joined = matrix.merged(eyes=("left_eye", "right_eye"), mouth=("mouth",))
    left, right = (matrix.shares[:, matrix.regions.index(f"{side}_eye")] for side in ("left", "right"))
    assert joined.regions == ("eyes", "mouth")
    np.testing.assert_allclose(joined.shares[:, 0], left + right)
    assert joined.people is not None
    assert joined.people.shape == (5, 6, 2)
    with pytest.raises(UnknownNameError):
        matrix.merged(eyes=("eye",))


def test_a_region_without_area_has_no_figure(decoder: Decoder) -> None:
    labels = np.zeros((24, 20), dtype=np.uint8)
    matrix = channel_regions(decoder, regions=RegionMap(labels))
    assert np.isnan(matrix.lift[:, 1:]).all()
    np.testing.assert_allclose(matrix.shares[:, 0], 1)
    np.testing.assert_allclose(matrix.density[:, 0], 1)


def test_wrong_arguments(decoder: Decoder, units: Tensor) -> None:
    with pytest.raises(InputError, match="at least two"):
        channel_regions(decoder, units[:1])
    with pytest.raises(InputError, match="confidence"):
        channel_regions(decoder, units, confidence=95)
    with pytest.raises(InputError, match="regions have size"):
        channel_regions(decoder, regions=template_regions((112, 112)))
    every = torch.arange(6)[None]
    for options in ({"response": "slope"}, {"batch_size": 0}):
        with pytest.raises(InputError):
            decoded_changes(decoder, units[:1], every, **options)
    with pytest.raises(InputError, match="N×K"):
        decoded_changes(decoder, units, every)
    with pytest.raises(InputError, match="replaces"):
        decoded_changes(decoder, units[:1], every, torch.zeros(4))
    with pytest.raises(InputError, match="norm"):
        sized_maps(decoder.atlas, (24, 20), "max")


@pytest.mark.parametrize("weight", ["square", "absolute"])
def test_dwelling_divides_the_embedding_among_regions(decoder: Decoder, units: Tensor, weight: str) -> None:
    regions = template_regions((24, 20))
    people = looped_shares(decoder, units, regions)
    found = dwelling(decoder, units[:2], units[2:], weight=weight)
    magnitudes = units.numpy() ** 2 if weight == "square" else np.abs(units.numpy())
    expected = np.zeros((5, len(REGION_NAMES)))
    for person in range(5):
        for channel in range(6):
            part = magnitudes[person, channel] / magnitudes[person].sum()
            expected[person] += part * people[person, channel]
    np.testing.assert_allclose(found.shares, expected[:2])
    np.testing.assert_allclose(found.people, expected[2:])
    np.testing.assert_allclose(found.expected, expected[2:].mean(axis=0))
    shown = np.array(list(regions.areas().values())) > 0
    average = expected[2:].mean(axis=0)[shown]
    np.testing.assert_allclose(found.ratio[:, shown], expected[:2, shown] / average)
    assert np.isnan(found.ratio[:, ~shown]).all()
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)


def test_dwelling_by_the_atlas_decodes_nothing(decoder: Decoder, units: Tensor) -> None:
    matrix = channel_regions(decoder)
    decoder.network = None
    found = dwelling(decoder, units, source="atlas")
    np.testing.assert_allclose(found.shares, units.square().numpy() @ matrix.shares)
    np.testing.assert_allclose(found.expected, matrix.average)
    assert found.people is None
    with pytest.raises(InputError, match="population"):
        _ = found.rank


def test_rank_is_the_part_of_people_below() -> None:
    people = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    found = Dwelling(("nose", "rest"), np.array([[0.35, 0.65], [0.2, 0.8]]), people, people.mean(axis=0))
    np.testing.assert_allclose(found.rank, [[0.75, 0.25], [0.375, 0.625]])


def test_dwelling_refuses_what_it_does_not_know(decoder: Decoder, units: Tensor) -> None:
    with pytest.raises(InputError, match="source"):
        dwelling(decoder, units, source="mean")
    with pytest.raises(InputError, match="weight"):
        channel_weights(units, "cube")


def test_shipped_atlas_tells_left_from_right() -> None:
    """A sanity check on trained weights: the channel that most speaks of one cheek is not the other's."""
    decoder = find_decoder(load_recognizer("xfr_compact128"))
    matrix = channel_regions(decoder)
    left, right = (matrix.top(f"{side}_cheek", 5) for side in ("left", "right"))
    assert left[0].lift > 1.5
    assert not {entry.channel for entry in left} & {entry.channel for entry in right}
    maps = normalised_maps(decoder.atlas)
    half = maps.shape[2] // 2
    assert maps[left[0].channel, :, half:].sum() > 0.5 > maps[right[0].channel, :, half:].sum()


def test_numbers_that_make_no_sense_are_errors(decoder: Decoder) -> None:
    matrix = channel_regions(decoder)
    for n in (0, -1, 1.5):
        with pytest.raises(InputError, match="n must be"):
            matrix.top("mouth", n)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InputError, match="at least one group"):
        matrix.merged()
    for quantiles in ((0.5, 2.0), (-0.1,), (float("nan"),)):
        with pytest.raises(InputError, match="quantiles lie between 0 and 1"):
            matrix.spread(*quantiles)
