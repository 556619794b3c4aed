"""Counterfactual evidence against plain loops; both forms; completeness, errors by resampling, options."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel
from helpers.counterfactual_loops import (
    PARTS,
    SIZE,
    any_model,
    cosine_of,
    face_net,
    faces,
    looped_evidence,
    looped_readings,
    rasterized_on_cores,
    region_masks,
)
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr.counterfactual.attribution import Counterfactual
from xfr_plugin.attr.counterfactual.model import READINGS
from xfr_plugin.errors import InputError
from xfr_plugin.faces import RegionMap, template_regions
from xfr_plugin.faces.outlines import find_outlines, find_regions
from xfr_plugin.swaps.donors import synthetic_faces
from xfr_plugin.swaps.regions import FaceRegions

Images = tuple[Tensor, Tensor]
TAU = 0.3
MODEL = any_model()
DONORS = 2


@pytest.fixture(scope="module")
def pair() -> Images:
    """Two pairs of synthetic faces, on each of which outlines are found."""
    pairs = faces()
    assert all(face.found for face in find_outlines(torch.cat(pairs)))
    return pairs


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return face_net()


@pytest.fixture(scope="module")
def donors() -> Tensor:
    return synthetic_faces(DONORS, SIZE).double()


@pytest.fixture(scope="module")
def loops(pair: Images, network: nn.Module, donors: Tensor) -> list[np.ndarray]:
    """Looped readings of the first pair, probe and reference, R×F×K."""
    a, b = pair[0][0], pair[1][0]
    regions = own_regions(pair)
    score = cosine_of(network)
    return [
        looped_readings(score, a, b, regions, list(donors)),
        looped_readings(score, b, a, regions[::-1], list(donors)),
    ]


def own_regions(pair: Images, index: int = 0) -> tuple[RegionMap, RegionMap]:
    probe, reference = find_regions(torch.stack((pair[0][index], pair[1][index])))
    return probe, reference


def counterfactual(network: Any, **options: Any) -> Counterfactual:
    return Counterfactual(network, TAU, **{"model": MODEL, "donors": DONORS, **options})


def from_scores(network: nn.Module, **options: Any) -> Counterfactual:
    def score(probes: Tensor, references: Tensor) -> Tensor:
        return functional.cosine_similarity(network(probes), network(references))

    return Counterfactual.from_scores(score, TAU, **{"model": MODEL, "donors": DONORS, **options})


def only(pair: Images, index: int) -> Images:
    return pair[0][index : index + 1], pair[1][index : index + 1]


def close(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_readings_are_those_of_plain_loops(pair: Images, network: nn.Module, loops: list[np.ndarray]) -> None:
    """Masks are kept in single precision, hence the tolerance."""
    attribution = counterfactual(network)
    for images, expected in ((only(pair, 0), loops[0]), (only(pair, 0)[::-1], loops[1])):
        readings, present = attribution.readings(images)
        assert readings.shape == (len(PARTS), len(READINGS["pair"]))
        assert present.all()
        np.testing.assert_allclose(readings.numpy(), expected.mean(axis=2), rtol=0, atol=1e-6)
    spread = loops[0].mean(axis=2).std(axis=0)
    assert (spread > 1e-3).all(), "every reading tells regions apart"


def test_evidence_and_maps_are_those_of_plain_loops(
    pair: Images, network: nn.Module, loops: list[np.ndarray]
) -> None:
    attribution = counterfactual(network)
    answers, maps = attribution.regional(only(pair, 0)), attribution.attribute(only(pair, 0))
    margin = cosine_of(network)(pair[0][0], pair[1][0]) - TAU
    for side, regions in enumerate(own_regions(pair)):
        areas = [int(mask.sum()) for mask in region_masks(regions).values()]
        expected = looped_evidence(MODEL, "pair", loops[side].mean(axis=2), areas, margin)
        answer = answers[side][0]
        assert answer.margin == pytest.approx(margin, abs=1e-12)
        np.testing.assert_allclose(answer.evidence.numpy(), expected, rtol=0, atol=1e-6)
        assert float(answer.evidence.sum()) == pytest.approx(margin, abs=1e-12)
        drawn = rasterized_on_cores(answer.evidence.tolist(), list(region_masks(regions).values()))
        np.testing.assert_allclose(maps[side][0].sum(dim=0).numpy(), drawn, rtol=0, atol=1e-14)
        close(maps[side][0, 0], maps[side][0, 2], 0)


def test_errors_are_those_of_a_bootstrap_by_hand(
    pair: Images, network: nn.Module, donors: Tensor, loops: list[np.ndarray]
) -> None:
    """200 draws of the faces of nobody, with replacement."""
    answer = counterfactual(network, seed=0).regional(only(pair, 0))[0][0]
    areas = [int(mask.sum()) for mask in region_masks(own_regions(pair)[0]).values()]
    drawn = torch.randint(DONORS, (200, DONORS), generator=torch.Generator().manual_seed(0))
    resampled = []
    for which in drawn.tolist():
        mean = np.mean([loops[0][:, :, k] for k in which], axis=0)
        resampled.append(looped_evidence(MODEL, "pair", mean, areas, answer.margin))
    np.testing.assert_allclose(answer.errors.numpy(), np.std(resampled, axis=0, ddof=1), rtol=1e-4)
    assert (answer.errors > 0).all()


def test_errors_need_several_faces_of_nobody(pair: Images, network: nn.Module) -> None:
    for answers in counterfactual(network, donors=1).regional(pair):
        assert all(not answer.errors.any() for answer in answers)


def test_errors_by_name_are_divided_between_both_sides(pair: Images, network: nn.Module) -> None:
    attribution = counterfactual(network)
    maps, errors = attribution.attribute_with_errors(only(pair, 1))
    assert errors is not None
    for side, plain in enumerate(attribution.attribute(only(pair, 1))):
        assert torch.equal(maps[side], plain)
    answers = attribution.regional(only(pair, 1))
    for side, regions in enumerate(own_regions(pair, 1)):
        areas, named = regions.areas(), errors[side]
        assert set(named) == {name for name, area in areas.items() if area}
        for (_, parts), error in zip(PARTS.items(), answers[side][0].errors.tolist(), strict=True):
            shown = [part for part in parts if areas[part]]
            assert sum(named[part] for part in shown) == pytest.approx(error)
            for part in shown:
                assert named[part] * areas[shown[0]] == pytest.approx(named[shown[0]] * areas[part])


def test_maps_sum_to_the_margin(pair: Images, network: nn.Module) -> None:
    attribution = counterfactual(network)
    assert attribution.has_convergence_delta()
    maps, delta = attribution.attribute(pair, return_convergence_delta=True)
    margins = functional.cosine_similarity(network(pair[0]), network(pair[1])) - TAU
    assert delta.shape == (2,)
    assert (delta.abs() < 1e-12).all()
    for side in maps:
        close(side.sum(dim=(1, 2, 3)), margins)
    alone, delta = attribution.attribute(
        pair[0], additional_forward_args=network(pair[1]), return_convergence_delta=True
    )
    assert (delta.abs() < 1e-12).all()
    close(alone.sum(dim=(1, 2, 3)), margins)


def test_convergence_delta_is_what_is_missing(
    pair: Images, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the face that misses more, with its sign."""
    import xfr_plugin.attr._base.regional as module

    drawn = module._drawn
    factors = iter([1.0, 1.0, 1.1, 0.5])
    monkeypatch.setattr(module, "_drawn", lambda *args: drawn(*args) * next(factors))
    _, delta = counterfactual(network).attribute(pair, return_convergence_delta=True)
    margins = functional.cosine_similarity(network(pair[0]), network(pair[1])) - TAU
    close(delta, margins * torch.tensor([0.1, -0.5], dtype=torch.float64))


def test_scores_alone_give_the_same_answers(pair: Images, network: nn.Module) -> None:
    first, second = counterfactual(network), from_scores(network)
    for found, expected in zip(second.attribute(pair), first.attribute(pair), strict=True):
        close(found, expected)
    for found, expected in zip(second.regional(pair)[1], first.regional(pair)[1], strict=True):
        close(found.errors, expected.errors)
    close(second.readings(only(pair, 1))[0], first.readings(only(pair, 1))[0])


def test_a_score_function_can_have_a_reference_of_its_own_kind(pair: Images, network: nn.Module) -> None:
    """The probe alone against stored templates, or against images: as against the embedding, one for all or each."""
    templates = functional.normalize(network(pair[1]))
    expected = counterfactual(network).attribute(pair[0], additional_forward_args=templates)

    def by_template(probes: Tensor, enrolled: Tensor) -> Tensor:
        assert enrolled.shape == (len(probes), templates.shape[1])
        return (functional.normalize(network(probes)) * enrolled).sum(dim=1)

    for attribution, references in (
        (Counterfactual.from_scores(by_template, TAU, model=MODEL, donors=DONORS), templates),
        (from_scores(network), pair[1]),
    ):
        close(attribution.attribute(pair[0], additional_forward_args=references), expected)
        shared = attribution.attribute(pair[0], additional_forward_args=references[:1])
        close(shared[0], expected[0])


def test_an_embedding_is_read_by_removal_and_transplant(
    pair: Images, network: nn.Module, donors: Tensor, loops: list[np.ndarray]
) -> None:
    which = [READINGS["pair"].index(name) for name in READINGS["alone"]]
    regions = own_regions(pair)[0]
    areas = [int(mask.sum()) for mask in region_masks(regions).values()]
    margin = cosine_of(network)(pair[0][0], pair[1][0]) - TAU
    evidence = looped_evidence(MODEL, "alone", loops[0][:, which].mean(axis=2), areas, margin)
    expected = rasterized_on_cores(evidence, list(region_masks(regions).values()))
    alone = counterfactual(network).attribute(
        pair[0][:1],
        additional_forward_args=5 * network(pair[1][:1]),  # it need not be normalised
    )
    np.testing.assert_allclose(alone[0].sum(dim=0).numpy(), expected, rtol=0, atol=1e-8)


def test_every_pair_of_a_batch_is_read_by_itself(pair: Images, network: nn.Module) -> None:
    attribution = counterfactual(network)
    together = attribution.attribute(pair)
    embeddings = network(pair[1])
    alone = attribution.attribute(pair[0], additional_forward_args=embeddings)
    for index in range(2):
        for found, expected in zip(attribution.attribute(only(pair, index)), together, strict=True):
            close(found[0], expected[index])
        found = attribution.attribute(pair[0][index : index + 1], additional_forward_args=embeddings[index])
        close(found[0], alone[index])


def test_forward_passes_are_as_many_as_promised_and_bounded(pair: Images, network: nn.Module) -> None:
    sizes: list[int] = []

    def embed(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        sizes.append(len(images))
        embedding: Tensor = network(images)
        return embedding

    attribution = counterfactual(embed, donors=3)
    expected = attribution.attribute(only(pair, 0))
    assert sum(sizes) == 2 + 2 * 8 + (1 + 4 * 8) * 3
    for limit in (1, 5, 1000):
        sizes.clear()
        found = attribution.attribute(only(pair, 0), perturbations_per_eval=limit)
        assert max(sizes) <= limit
        for side, other in zip(found, expected, strict=True):
            close(side, other)
    sizes.clear()
    attribution.attribute(pair[0][:1], additional_forward_args=network(pair[1][:1]))
    assert sum(sizes) == 1 + (1 + 2 * 8) * 3


def test_answers_follow_from_the_seed_alone(pair: Images, network: nn.Module) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = counterfactual(network, seed=4).regional(only(pair, 0))[0][0]
    assert torch.equal(torch.random.get_rng_state(), state), "the global random state is left alone"
    torch.manual_seed(2)
    again = counterfactual(network, seed=4).regional(only(pair, 0))[0][0]
    other = counterfactual(network, seed=5).regional(only(pair, 0))[0][0]
    assert torch.equal(first.evidence, again.evidence)
    assert torch.equal(first.errors, again.errors)
    assert not torch.allclose(first.evidence, other.evidence)


def test_regions_are_each_faces_own_or_the_templates(pair: Images, network: nn.Module) -> None:
    template = template_regions(SIZE)
    for side, answers in enumerate(counterfactual(network, regions="template").regional(pair)):
        for index, answer in enumerate(answers):
            np.testing.assert_array_equal(answer.regions.labels.labels, template.labels)
            found = counterfactual(network).regional(only(pair, index))[side][0]
            own = own_regions(pair, index)[side]
            np.testing.assert_array_equal(found.regions.labels.labels, own.labels)
            assert (own.labels != template.labels).any()
            assert not torch.allclose(found.evidence, answer.evidence)


def test_errors_of_the_template_belong_to_no_face(pair: Images, network: nn.Module) -> None:
    """Errors are reported beside the evidence of each face's own regions."""
    attribution = counterfactual(network, regions="template")
    maps, errors = attribution.attribute_with_errors(only(pair, 0))
    assert errors is None
    assert torch.equal(maps[0], attribution.attribute(only(pair, 0))[0])


def test_other_faces_can_take_the_place_of_nobodys(pair: Images, network: nn.Module) -> None:
    plain = counterfactual(network).attribute(pair)
    same = counterfactual(network, population=synthetic_faces(5, SIZE)).attribute(pair)
    others = counterfactual(network, population=synthetic_faces(2, SIZE, seed=9)).attribute(pair)
    for side in range(2):
        close(same[side], plain[side])
        assert not torch.allclose(others[side], plain[side])
    few = counterfactual(network, population=synthetic_faces(1, SIZE), donors=4).regional(pair)
    assert not few[0][0].errors.any(), "no more faces than there are"
    with pytest.raises(InputError, match="resize them"):
        counterfactual(network, population=synthetic_faces(1, (24, 20))).attribute(pair)


def test_regions_that_a_face_does_not_show_get_nothing(network: nn.Module) -> None:
    """On six pixels the template lacks small ones."""
    images = faces(1, (6, 6))
    answers = counterfactual(network, regions="template").regional(images)
    shown = template_regions((6, 6)).areas()
    absent = [name for name, parts in PARTS.items() if not any(shown[part] for part in parts)]
    assert "brows" in absent
    assert not {"forehead", "cheeks", "outside"} & set(absent)
    for side, maps in zip(
        answers, counterfactual(network, regions="template").attribute(images), strict=True
    ):
        evidence = dict(zip(PARTS, side[0].evidence.tolist(), strict=True))
        assert all(evidence[name] == 0 for name in absent)
        assert all(evidence[name] != 0 for name in PARTS if name not in absent)
        assert float(maps.sum()) == pytest.approx(side[0].margin, abs=1e-12)


def test_named_errors_leave_absent_regions_out(network: nn.Module) -> None:
    _, errors = counterfactual(network).attribute_with_errors(faces(1, (6, 6)))
    assert errors is not None
    for named in errors:
        assert set(named) == {name for name, area in template_regions((6, 6)).areas().items() if area}
        assert "right_brow" not in named


@pytest.mark.parametrize("channels", [1, 4])
def test_images_that_are_not_rgb_have_the_templates_regions(pair: Images, channels: int) -> None:
    """And the faces of nobody are grey."""
    network = face_net(channels)
    images = tuple(side.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1) for side in pair)
    attribution = counterfactual(network)
    maps = attribution.attribute(images)
    template = template_regions(SIZE)
    score = cosine_of(network)
    grey = synthetic_faces(DONORS, SIZE).double().mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    expected = looped_readings(score, images[0][0], images[1][0], (template, template), list(grey[:1]))
    found, _ = counterfactual(network, donors=1).readings((images[0][:1], images[1][:1]))
    np.testing.assert_allclose(found.numpy(), expected[:, :, 0], rtol=0, atol=1e-6)
    for side, original in zip(maps, images, strict=True):
        assert side.shape == original.shape
        close(side.sum(dim=(1, 2, 3)), functional.cosine_similarity(*map(network, images)) - TAU)


def test_identical_faces_differ_in_nothing(network: nn.Module, pair: Images) -> None:
    """With the shipped model: no region argues against, but for 0.002, and all together they are 1 − τ."""
    same = (pair[0], pair[0])
    maps = Counterfactual(network, TAU).attribute(same)
    for side, answers in enumerate(Counterfactual(network, TAU).regional(same)):
        for answer in answers:
            assert float(answer.evidence.min()) > -0.01 * answer.margin
            assert float(answer.evidence.sum()) == pytest.approx(1 - TAU, abs=1e-12)
        close(maps[side], maps[0])


def test_model_and_inputs_are_as_before(pair: Images) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    network = network.double().eval()
    before, images = (
        copy.deepcopy(network.state_dict()),
        tuple(side.clone().requires_grad_() for side in pair),
    )
    maps = counterfactual(network).attribute(images)
    assert not any(side.requires_grad for side in maps)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert not module.training
    assert all(torch.equal(image, side) for image, side in zip(images, pair, strict=True))


def test_noise_tunnel_hands_the_delta_on(pair: Images, network: nn.Module) -> None:
    maps, delta = NoiseTunnel(counterfactual(network)).attribute(
        only(pair, 0), nt_samples=2, stdevs=0.0, return_convergence_delta=True
    )
    for side, expected in zip(maps, counterfactual(network).attribute(only(pair, 0)), strict=True):
        close(side, expected)
    assert (delta.abs() < 1e-12).all()


def test_progress_is_shown_when_asked_for(
    pair: Images, network: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    attribution = counterfactual(network, donors=1)
    attribution.attribute(pair)
    assert capsys.readouterr().err == ""
    attribution.attribute(pair, show_progress=True)
    assert "Counterfactual attribution: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"regions": "mesh"},
        {"donors": 0},
        {"population": torch.zeros(0, 3, 8, 8)},
        {"population": torch.zeros(3, 8, 8)},
    ],
)
def test_unknown_options_are_refused(network: nn.Module, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        counterfactual(network, **options)


def test_inputs_that_cannot_be_read(pair: Images, network: nn.Module) -> None:
    attribution = counterfactual(network)
    with pytest.raises(InputError, match="perturbations_per_eval"):
        attribution.attribute(pair, perturbations_per_eval=0)
    with pytest.raises(InputError, match="floating-point"):
        attribution.attribute((pair[0] > 0.5, pair[1] > 0.5))
    with pytest.raises(InputError, match="reference embedding"):
        attribution.attribute(pair[0])
    with pytest.raises(InputError, match="finite"):
        attribution.attribute((pair[0] * float("nan"), pair[1]))
    with pytest.raises(AssertionError):
        attribution.attribute(pair, target=1)


def test_evidence_lies_on_regions_that_are_there_and_sums_to_one() -> None:
    masks = np.zeros((3, 112, 112), dtype=bool)
    masks[0, 40:70, 0:20] = masks[1] = masks[2, 3, 3] = True
    present = np.array([True, True, False])
    weights = FaceRegions(template_regions(), present, masks).weights
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), [1, 1, 0], atol=1e-12)
    assert not weights[~masks].any()
    assert weights[0, 55, 0] > weights[0, 55, 19] > 0, "what the image cuts off is not an outline"
    np.testing.assert_allclose(weights[1], 1 / 112**2)
