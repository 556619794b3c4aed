"""Leave one region out against plain loops; the sum rule and levels; operators; errors; black boxes; options."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from helpers.region_loops import SIZE, cosine_of, face_net, faces, rasterized_on_cores, with_region
from numpy.typing import NDArray
from skimage.transform import AffineTransform, warp
from torch import Tensor, nn

from xfr_plugin.attr import LeaveOneOut
from xfr_plugin.attr._base.prepared import Prepared
from xfr_plugin.attr.intervention.level import (
    Expected,
    Level,
    expected_of,
    levelled,
    measure_shares,
    region_shares,
    relative_areas,
)
from xfr_plugin.errors import InputError
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import REGION_NAMES
from xfr_plugin.swaps.donors import composite_faces, population_face
from xfr_plugin.swaps.masks import grown
from xfr_plugin.swaps.regions import COARSE_REGIONS, FINE_REGIONS, FaceRegions, Grouping, regions_of

TAU, DONORS = 0.3, 2
Images = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def pair() -> Images:
    return faces()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return face_net()


def method(network: Any, **options: Any) -> LeaveOneOut:
    return LeaveOneOut(network, TAU, **{"donors": DONORS, **options})


def own_regions(image: Tensor) -> FaceRegions:
    return regions_of(find_regions(image[None]), FINE_REGIONS)[0]


def moved(donor: Tensor, theirs: NDArray[np.bool_], own: NDArray[np.bool_]) -> Tensor:
    """The donor, moved so that the box of its mask's centre and spread comes to lie on the other's."""
    (x, y), (width, height) = centre_and_spread(own)
    (left, top), (wide, high) = centre_and_spread(theirs)
    sx, sy = np.clip(wide / width, 1 / 1.6, 1.6), np.clip(high / height, 1 / 1.6, 1.6)
    place = AffineTransform(np.array([[sx, 0, left - sx * x], [0, sy, top - sy * y], [0, 0, 1]]))
    planes = [
        warp(plane, place, order=1, mode="edge", preserve_range=True) for plane in donor.double().numpy()
    ]
    return torch.from_numpy(np.stack(planes))


def centre_and_spread(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places = np.argwhere(mask)[:, ::-1]
    return places.mean(axis=0), np.maximum(places.std(axis=0), 0.5)


def looped_losses(network: nn.Module, face: Tensor, partner: Tensor, donors: Tensor) -> NDArray[np.float64]:
    """What the score loses without each region, K×R, one changed face at a time; NaN for regions not shown."""
    own, score = own_regions(face), cosine_of(network)
    theirs = regions_of(find_regions(donors.float()), FINE_REGIONS)
    losses = np.full((len(donors), len(own.names)), np.nan)
    for k, donor in enumerate(donors):
        for r, name in enumerate(own.names):
            if not own.present[r]:
                continue
            still = name in ("background", "hair") or not theirs[k].present[r]
            put = donor.double() if still else moved(donor, theirs[k].masks[r], own.masks[r])
            mask = grown(torch.from_numpy(own.masks[r])).numpy()
            losses[k, r] = score(face, partner) - score(with_region(face, put, mask), partner)
    return losses


def test_evidence_is_what_plain_loops_lose_less_the_level(pair: Images, network: nn.Module) -> None:
    a, b = pair[0][0], pair[1][0]
    losses = looped_losses(network, a, b, composite_faces(DONORS, SIZE))
    answer = method(network).regional((a[None], b[None]))[0][0]
    own = own_regions(a)
    known = region_shares(network, "leave_one_out")
    usual = json.loads((resources.files("xfr_plugin.attr.intervention") / "levels.json").read_text())["area"]
    sizes = [
        mask.mean() / usual.get(name, mask.mean()) for name, mask in zip(own.names, own.masks, strict=True)
    ]
    measured = np.array([known.get(name, 0.0) for name in own.names]) * sizes
    gain = measured[own.present].sum()
    margin = cosine_of(network)(a, b) - TAU
    lost = np.nan_to_num(losses) / gain
    shares = np.where(own.present, measured, 0) / gain
    expected = lost + (margin - lost.sum(axis=1, keepdims=True)) * shares
    assert np.allclose(answer.evidence.numpy(), expected.mean(axis=0), atol=1e-6)
    assert np.allclose(answer.errors.numpy(), expected.std(axis=0, ddof=1) / DONORS**0.5, atol=1e-6)


def test_maps_sum_to_the_margin_of_each_face(pair: Images, network: nn.Module) -> None:
    maps, delta = method(network).attribute(pair, return_convergence_delta=True)
    scores = torch.tensor([cosine_of(network)(a, b) for a, b in zip(*pair, strict=True)]).double()
    for side in maps:
        assert torch.allclose(side.sum(dim=(1, 2, 3)), scores - TAU, atol=1e-9)
    assert delta.abs().max() < 1e-9


def test_each_map_lies_on_the_cores_of_the_regions(pair: Images, network: nn.Module) -> None:
    attribution = method(network)
    probe_map, _ = attribution.attribute(pair)
    answer = attribution.regional(pair)[0][1]
    shown = answer.regions.present
    evidence = answer.evidence[torch.from_numpy(shown)].tolist()
    expected = rasterized_on_cores(evidence, list(answer.regions.masks[shown]))
    assert np.allclose(probe_map[1].sum(dim=0).numpy(), expected, atol=1e-9)


def test_swapping_the_faces_swaps_the_maps(pair: Images, network: nn.Module) -> None:
    attribution = method(network)
    maps, swapped = attribution.attribute(pair), attribution.attribute(pair[::-1])
    assert torch.allclose(maps[0], swapped[1])
    assert torch.allclose(maps[1], swapped[0])


def test_a_region_that_the_network_does_not_see_loses_nothing(pair: Images) -> None:
    class UpperHalf(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, : SIZE[0] // 3, ::4].flatten(1) - 0.4

    answer = method(UpperHalf(), level="none").regional(pair)[0][0]
    unseen = [answer.regions.names.index(name) for name in ("chin", "mouth", "nose")]
    assert answer.evidence[unseen].abs().max() == 0
    assert answer.evidence.abs().max() > 1e-3


def test_the_same_faces_one_by_one_and_together(pair: Images, network: nn.Module) -> None:
    together = method(network).attribute(pair, perturbations_per_eval=5)
    alone = method(network).attribute((pair[0][1:], pair[1][1:]), perturbations_per_eval=64)
    assert torch.allclose(together[0][1:], alone[0])


def test_scores_alone_and_embeddings_say_the_same(pair: Images, network: nn.Module) -> None:
    def score(probes: Tensor, references: Tensor) -> Tensor:
        return torch.cosine_similarity(network(probes), network(references))

    black_box = LeaveOneOut.from_scores(score, TAU, donors=DONORS)
    for own, other in zip(black_box.attribute(pair), method(network).attribute(pair), strict=True):
        assert torch.allclose(own, other, atol=1e-9)


def test_a_probe_against_an_embedding_has_the_map_that_it_has_in_the_pair(
    pair: Images, network: nn.Module
) -> None:
    alone = method(network).attribute(pair[0], additional_forward_args=network(pair[1]))
    assert torch.allclose(alone, method(network).attribute(pair)[0])


@pytest.mark.parametrize("level", ["threshold", "score", "none"])
def test_levels_sum_as_they_say(level: Any, pair: Images, network: nn.Module) -> None:
    losses = method(network, level="none").regional(pair)[0][0]
    answer = method(network, level=level).regional(pair)[0][0]
    wanted = {"threshold": cosine_of(network)(pair[0][0], pair[1][0]) - TAU, "score": 0.0}
    assert float(answer.evidence.sum()) == pytest.approx(wanted.get(level, float(losses.evidence.sum())))


@pytest.mark.parametrize("operator", ["mean", "blur", "partner", "black"])
def test_operators_differ_and_keep_the_sum(operator: Any, pair: Images, network: nn.Module) -> None:
    usual, other = method(network).attribute(pair)[0], method(network, operator=operator).attribute(pair)[0]
    assert not torch.allclose(usual, other, atol=1e-4)
    assert torch.allclose(usual.sum(dim=(1, 2, 3)), other.sum(dim=(1, 2, 3)))


def test_black_puts_black(pair: Images) -> None:
    seen: list[Tensor] = []

    def spy(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1)

    method(spy, operator="black", regions="template").regional((pair[0][:1], pair[1][:1]))
    changed = torch.cat(seen)
    assert changed.amin(dim=(1, 2, 3)).max() < 0.05  # every region has a core that is black
    assert changed.min() >= 0


def test_one_donor_has_no_error(pair: Images, network: nn.Module) -> None:
    assert method(network, donors=1).regional(pair)[0][0].errors.isnan().all()
    assert method(network, operator="mean").regional(pair)[0][0].errors.isnan().all()


@pytest.mark.parametrize(
    ("options", "has_errors"),
    [({}, True), ({"players": "coarse"}, True), ({"players": "grid7"}, False), ({"donors": 1}, False)],
)
def test_errors_are_told_of_named_regions_and_several_donors(
    options: dict[str, Any], has_errors: bool, pair: Images, network: nn.Module
) -> None:
    one = pair[0][:1], pair[1][:1]
    found = method(network, **options).explain_prepared(*map(Prepared, one), errors=True).errors
    assert (found is not None) == has_errors
    for side, image in zip(found[0] if found else (), one, strict=has_errors):
        areas = own_regions(image[0]).labels.areas()
        assert side.keys() == {name for name, area in areas.items() if area}
        assert all(np.isfinite(error) and error >= 0 for error in side.values())


def test_faces_of_ones_own_stand_for_the_population(pair: Images, network: nn.Module) -> None:
    own = method(network, population=composite_faces(DONORS, SIZE).double()).attribute(pair)
    assert torch.allclose(own[0], method(network).attribute(pair)[0])
    mean = method(network, population=population_face(SIZE)).attribute(pair)
    assert torch.allclose(mean[0], method(network, operator="mean").attribute(pair)[0])


def test_levelled_evidence_is_measured_from_what_is_expected() -> None:
    values = torch.tensor([0.2, 0.1], dtype=torch.float64)
    expected = Expected(torch.tensor([0.25, 0.75], dtype=torch.float64), gain=2.0)
    cases: tuple[tuple[Level, tuple[float, float]], ...] = (
        ("threshold", (0.1125, 0.0875)),
        ("score", (0.0625, -0.0625)),
        ("none", (0.2, 0.1)),
    )
    for level, wanted in cases:
        found = levelled(values, 0.5, 0.3, expected, level)
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_what_a_face_does_not_show_is_not_expected(pair: Images) -> None:
    own = own_regions(pair[0][0])
    expected = expected_of(dict.fromkeys(own.names, 0.1), own)
    assert float(expected.shares.sum()) == pytest.approx(1)
    assert (expected.shares[~torch.from_numpy(own.present)] == 0).all()


@pytest.mark.parametrize("grouping", [FINE_REGIONS, COARSE_REGIONS])
def test_a_sliver_is_expected_to_bring_a_slivers_share(pair: Images, grouping: Grouping) -> None:
    """But for hair, whose area says nothing."""
    whole = own_regions(pair[0][0]).labels
    cut = whole.labels.copy()
    for name in ("right_cheek", "left_cheek", "hair"):
        places = np.argwhere(whole.mask(name))
        cut[tuple(places[len(places) // 4 :].T)] = 0
    sliver = replace(whole, labels=cut)
    measured = dict.fromkeys(REGION_NAMES, 0.1)
    before, after = (
        dict(zip(grouping, expected.shares * expected.gain, strict=True))
        for expected in (
            expected_of(measured, regions_of([labels], grouping)[0]) for labels in (whole, sliver)
        )
    )
    for name in set(grouping) & {"right_cheek", "left_cheek", "cheeks"}:
        assert float(after[name] / before[name]) == pytest.approx(0.25, abs=0.02)
    for name in set(grouping) & {"hair", "nose", "chin"}:
        assert float(after[name]) == pytest.approx(float(before[name]))


def test_regions_that_nothing_was_measured_for_are_expected_by_their_area(pair: Images) -> None:
    own = own_regions(pair[0][0])
    expected = expected_of({}, own)
    assert expected.gain == 1
    assert expected.shares.argmax() == int(np.argmax(own.masks.sum(axis=(1, 2)) * own.present))


def test_measured_values_are_for_each_unit_of_the_score(pair: Images, network: nn.Module) -> None:
    values = method(network, level="none")
    genuine = (pair[0], 0.5 * pair[0] + 0.5 * pair[1])
    measured = measure_shares(values, [genuine])
    answers = [answer for side in values.regional(genuine) for answer in side]
    nose = answers[0].regions.names.index("nose")
    sizes = [relative_areas(answer.regions.labels)["nose"] for answer in answers]
    brought = sum(float(answer.evidence[nose]) for answer in answers)
    asked = sum(answer.score * size for answer, size in zip(answers, sizes, strict=True))
    assert measured["nose"] == pytest.approx(max(0, brought / asked))
    with pytest.raises(InputError, match="level='none'"):
        measure_shares(method(network), [genuine])
    with pytest.raises(InputError, match="genuine"):
        measure_shares(values, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operator": "white"}, "operator must be"),
        ({"level": 0}, "level must be"),
        ({"donors": 0}, "donors"),
        ({"donors": 99}, "pass a population"),
        ({"population": torch.zeros(0, 3, 56, 48)}, "population"),
        ({"population": torch.zeros(1, 3, 20, 20)}, "resize"),
        ({"regions": "mesh"}, "regions must be"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], message: str, pair: Images, network: nn.Module
) -> None:
    with pytest.raises(InputError, match=message):
        method(network, **options).attribute(pair)


def test_the_partners_regions_need_its_image(pair: Images, network: nn.Module) -> None:
    with pytest.raises(InputError, match="needs both faces as images"):
        method(network, operator="partner").attribute(pair[0], additional_forward_args=network(pair[1]))


def test_a_face_of_several_pairs_is_changed_once(pair: Images, network: nn.Module) -> None:
    """As the probe of a gallery: every further partner costs nothing but a product."""
    counts: list[int] = []

    def counting(images: Tensor) -> Tensor:
        counts.append(len(images))
        embedded: Tensor = network(images)
        return embedded

    partners = network(torch.cat((pair[1], pair[0])))
    probes = pair[0][:1].expand(4, -1, -1, -1)
    many = method(counting).attribute(probes, additional_forward_args=partners)
    together = sum(counts)
    counts.clear()
    one = method(counting).attribute(probes[:1], additional_forward_args=partners[2:3])
    assert together <= sum(counts) + 3  # the faces themselves
    assert torch.allclose(many[2:3], one)


def test_a_face_of_many_pairs_costs_its_passes_once(network: nn.Module, pair: Images) -> None:
    """And its evidence is what it is without anything kept, whatever came before."""
    embedded: list[int] = []

    def counted(images: Tensor) -> Tensor:
        embedded.append(len(images))
        return network(images)

    def passes(attribution: LeaveOneOut, images: Images) -> tuple[int, list[Tensor]]:
        embedded.clear()
        found = [side[0].evidence for side in attribution.regional(images)]
        return sum(embedded), found

    plain, keeping = method(counted), method(counted)
    keeping.keep_effects(2**20)
    mirrored = pair[1].flip(-1)
    first, _ = passes(keeping, pair)
    assert first == passes(plain, pair)[0]
    for images, cost in (
        (pair, 0),
        (pair[::-1], 0),
        ((pair[0], mirrored), passes(plain, (mirrored,) * 2)[0]),
    ):
        found, evidence = passes(keeping, images)
        assert found == cost
        for own, theirs in zip(evidence, passes(plain, images)[1], strict=True):
            torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)
