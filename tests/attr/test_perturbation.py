"""Attributions that see scores only: against plain loops, in both forms, and on faces where the truth is known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.perturbation_loops import LOOPS, Score, plant
from scipy.ndimage import gaussian_filter
from torch import Tensor

from xfr_plugin.attr import METHODS, CorrRise, MeryAvg, MinPlus, PerturbationPairAttribution, SRise, XFace
from xfr_plugin.attr._base.masks import random_grids, weighted_sum
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer

Images = tuple[Tensor, Tensor]
Black = type[PerturbationPairAttribution]

SMALL: list[tuple[Black, dict[str, Any]]] = [
    (CorrRise, {"n_masks": 20}),
    (CorrRise, {"n_masks": 30, "n_patches": 2, "patch_size": 40, "correlation": "spearman", "fill": "mean"}),
    (CorrRise, {"n_masks": 12, "fill": "blur", "seed": 5}),
    (SRise, {"n_masks": 20}),
    (SRise, {"n_masks": 15, "grid": 4, "keep_probability": 0.3, "level": "none", "seed": 3}),
    (SRise, {"n_masks": 15, "level": "threshold", "fill": 0.5}),
    (XFace, {"patch_sizes": (28, 50), "stride": 20}),
    (XFace, {"patch_sizes": (40,), "stride": 30, "pairing": "same", "blur": None}),
    (XFace, {"patch_sizes": (40, 60), "stride": 30, "pairing": "all", "blur": (3, 1.0), "fill": "mean"}),
    (MeryAvg, {"stride": 25}),
    (MeryAvg, {"stride": 30, "strategy": "removal", "sigma": 20, "fill": "blur"}),
    (MeryAvg, {"stride": 30, "strategy": "aggregation", "fill": 0.3}),
    (MinPlus, {"stride": 35}),
    (MinPlus, {"stride": 37, "rounds": 4, "strategy": "removal", "sigma": 15}),
    (MinPlus, {"stride": 30, "rounds": 2, "strategy": "aggregation", "fill": "mean", "blur": (3, 1.0)}),
]
IDS = [f"{cls.__name__}-{i}" for i, (cls, _) in enumerate(SMALL)]
CLASSES = [CorrRise, SRise, XFace, MeryAvg, MinPlus]
QUICK: dict[Black, dict[str, Any]] = {
    CorrRise: {"n_masks": 10},
    SRise: {"n_masks": 10},
    XFace: {"stride": 40},
    MeryAvg: {"stride": 40},
    MinPlus: {"stride": 40},
}


@pytest.fixture(params=SMALL, ids=IDS)
def attribution(request: pytest.FixtureRequest, recognizer: Recognizer) -> PerturbationPairAttribution:
    cls, options = request.param
    built: PerturbationPairAttribution = cls(recognizer, **options)
    return built


def scorer(recognizer: Recognizer) -> Score:
    frozen = copy.deepcopy(recognizer).requires_grad_(False)
    return lambda probes, references: (frozen(probes) * frozen(references)).sum(dim=1)


@pytest.mark.parametrize(("cls", "options"), SMALL, ids=IDS)
def test_maps_are_those_of_a_plain_loop(
    cls: Black, options: dict[str, Any], recognizer: Recognizer, pair: Images
) -> None:
    """One masked face at a time, the partner embedded again for each, masks drawn pixel by pixel."""
    maps = cls(recognizer, **options).attribute(pair)
    expected = LOOPS[cls]((pair[0][1], pair[1][1]), scorer(recognizer), recognizer.threshold, options)
    for side in range(2):
        torch.testing.assert_close(maps[side][1].sum(dim=0), expected[side], atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(maps[side][1][0], maps[side][1][2])


def test_score_function_gives_the_same_maps(
    attribution: PerturbationPairAttribution, recognizer: Recognizer, pair: Images
) -> None:
    names = METHODS_BY_CLASS[type(attribution)].options()
    options = {name: getattr(attribution, name) for name in names}
    if isinstance(attribution, XFace) and attribution.blurs_by_stride:
        options["blur"] = "stride"
    alike = type(attribution).from_scores(scorer(recognizer), 0.2, **options)
    for maps, expected in zip(alike.attribute(pair), attribution.attribute(pair), strict=True):
        torch.testing.assert_close(maps, expected, atol=1e-12, rtol=1e-9)


def test_maps_do_not_depend_on_the_batch_size(attribution: PerturbationPairAttribution, pair: Images) -> None:
    expected = attribution.attribute(pair)
    for size in (1, 5, 1000):
        for maps, side in zip(
            attribution.attribute(pair, perturbations_per_eval=size), expected, strict=True
        ):
            torch.testing.assert_close(maps, side, atol=1e-12, rtol=1e-9)


def test_perturbations_per_eval_bounds_every_forward_pass(
    attribution: PerturbationPairAttribution, recognizer: Recognizer, pair: Images
) -> None:
    sizes: list[int] = []

    def embed(images: Tensor) -> Tensor:
        sizes.append(len(images))
        embedding: Tensor = recognizer(images)
        return embedding

    attribution.forward_func = embed
    for limit in (2, 7):
        sizes.clear()
        attribution.attribute(pair, perturbations_per_eval=limit)
        assert max(sizes) <= limit


@pytest.mark.parametrize("cls", CLASSES)
def test_partners_are_embedded_once(cls: Black, recognizer: Recognizer, pair: Images) -> None:
    """As many masked faces are embedded as there are masks, and each clean face once."""
    count = 0

    def embed(images: Tensor) -> Tensor:
        nonlocal count
        count += len(images)
        embedding: Tensor = recognizer(images)
        return embedding

    cls(embed, 0.2, **QUICK[cls]).attribute((pair[0][:1], pair[1][:1]))
    if cls in (CorrRise, SRise):
        assert count == 2 * (1 + 10)
    else:
        lattice = {XFace: 3 * 16, MeryAvg: 2 * 10, MinPlus: 6 * 10}
        assert count <= 2 * (1 + lattice[cls])


@pytest.mark.parametrize("cls", CLASSES)
def test_no_gradient_is_asked_for(cls: Black, recognizer: Recognizer, pair: Images) -> None:
    def embed(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not images.requires_grad
        embedding: Tensor = recognizer(images)
        return embedding

    images = (pair[0].clone().requires_grad_(), pair[1].clone().requires_grad_())
    maps = cls(embed, 0.2, **QUICK[cls]).attribute(images)
    assert torch.is_grad_enabled()
    assert not maps[0].requires_grad
    assert all(image.grad is None for image in images)


@pytest.mark.parametrize("cls", CLASSES)
def test_progress_is_shown_when_asked_for(
    cls: Black, recognizer: Recognizer, pair: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    attribution = cls(recognizer, **QUICK[cls])
    quiet = attribution.attribute(pair)
    assert capsys.readouterr().err == ""
    shown = attribution.attribute(pair, show_progress=True)
    assert f"{attribution.get_name()} attribution" in (text := capsys.readouterr().err)
    assert "100%" in text
    assert torch.equal(quiet[0], shown[0])


PLANTED: list[tuple[Black, dict[str, Any]]] = [
    (CorrRise, {"n_masks": 300}),
    (CorrRise, {"n_masks": 300, "correlation": "spearman"}),
    (SRise, {"n_masks": 300}),
    (XFace, {"stride": 10}),
    (XFace, {"stride": 10, "pairing": "same"}),
    (XFace, {"stride": 10, "pairing": "all"}),
    (MeryAvg, {"stride": 12}),
    (MeryAvg, {"stride": 12, "strategy": "removal"}),
    (MinPlus, {"stride": 12}),
]


@pytest.mark.parametrize(("cls", "options"), PLANTED)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("block", [1, 4])
def test_maps_point_at_the_block_that_differs(
    cls: Black, options: dict[str, Any], sign: int, block: int
) -> None:
    """Faces alike in all blocks but one: the dissimilar map is there; unlike in all but one: the similar map is."""
    embed, (probe, reference), inside = plant(block, alike=sign < 0)
    maps = cls(embed, 0.2, fill=0.5, **options).attribute((probe, reference))
    for side in maps:
        evidence = sign * side[0].sum(dim=0)
        assert bool(inside.flatten()[evidence.argmax()])
        assert float(evidence[inside].mean()) > 0
        assert float(evidence[~inside].mean()) < 0


def test_a_score_function_of_another_scale_gives_the_same_correlations(
    recognizer: Recognizer, pair: Images
) -> None:
    """An API may score from 0 to 100, and answer with a list of numbers."""
    score = scorer(recognizer)

    def percent(probes: Tensor, references: Tensor) -> list[float]:
        numbers: list[float] = (50 + 50 * score(probes, references)).tolist()
        return numbers

    maps = CorrRise.from_scores(percent, 60, n_masks=20).attribute(pair)
    expected = CorrRise(recognizer, n_masks=20).attribute(pair)
    torch.testing.assert_close(maps[1], expected[1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_score_function_can_have_a_reference_of_its_own_kind(
    cls: Black, recognizer: Recognizer, pair: Images
) -> None:
    """The probe alone against stored templates, or against images; one for all pairs, or one each."""
    attribution = cls(recognizer, **QUICK[cls])
    expected = attribution.attribute(pair)[0]
    templates = recognizer.embed(pair[1])
    calls: list[tuple[Callable[..., Tensor], Tensor]] = [
        (lambda probes, enrolled: (recognizer(probes) * enrolled).sum(dim=1), templates),
        (scorer(recognizer), pair[1]),
    ]
    for score, references in calls:
        alike = cls.from_scores(score, 0.2, **QUICK[cls])
        maps = alike.attribute(pair[0], additional_forward_args=references)
        torch.testing.assert_close(maps, expected)
        shared = alike.attribute(pair[0], additional_forward_args=(references[:1],))
        torch.testing.assert_close(shared[0], expected[0])


def test_further_arguments_reach_the_score_function(recognizer: Recognizer, pair: Images) -> None:
    gains = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)

    def score(probes: Tensor, references: Tensor, gain: Tensor, power: int) -> Tensor:
        assert len(gain) == len(probes)
        return (scorer(recognizer)(probes, references) * gain) ** power

    attribution = MeryAvg.from_scores(score, 0.2, stride=40)
    plain = MeryAvg(recognizer, stride=40).attribute(pair)
    maps = attribution.attribute(pair, additional_forward_args=(gains, 1))
    for side, expected in zip(maps, plain, strict=True):
        torch.testing.assert_close(side, expected * gains.view(-1, 1, 1, 1))


def test_gallery_maps_are_those_of_each_candidate(recognizer: Recognizer, pair: Images) -> None:
    gallery = 3 * recognizer.embed(torch.rand(7, 3, 24, 20, dtype=torch.float64))
    attribution = CorrRise(recognizer, n_masks=20)
    found = attribution.attribute_gallery(pair[0], gallery, top_k=3)
    cosines = recognizer.embed(pair[0]) @ (gallery / 3).T
    torch.testing.assert_close(found.scores, cosines.sort(dim=1, descending=True).values[:, :3])
    assert found.maps.shape == (3, 3, 3, 24, 20)
    for k in range(3):
        candidates = gallery[found.indices[:, k]]
        expected = attribution.attribute(pair[0], additional_forward_args=candidates)
        torch.testing.assert_close(found.maps[:, k], expected)
    with pytest.raises(InputError, match="top_k"):
        attribution.attribute_gallery(pair[0], gallery, top_k=8)
    with pytest.raises(InputError, match="embeddings"):
        CorrRise.from_scores(scorer(recognizer), 0.2).attribute_gallery(pair[0], gallery)


def test_same_places_give_both_faces_one_map(recognizer: Recognizer, pair: Images) -> None:
    first, second = XFace(recognizer, pairing="same", stride=40).attribute(pair)
    assert torch.equal(first, second)


@pytest.mark.parametrize("pairing", ["same", "all"])
def test_both_faces_can_be_masked_only_where_both_are_images(
    recognizer: Recognizer, pair: Images, pairing: str
) -> None:
    attribution = XFace(recognizer, pairing=pairing)
    with pytest.raises(InputError, match="both as images"):
        attribution.attribute(pair[0], additional_forward_args=recognizer.embed(pair[1]))


def test_one_round_of_minplus_is_avg(recognizer: Recognizer, pair: Images) -> None:
    once = MinPlus(recognizer, rounds=1, stride=30).attribute(pair)
    torch.testing.assert_close(once, MeryAvg(recognizer, stride=30).attribute(pair))


def test_scores_that_do_not_vary_correlate_with_nothing(pair: Images) -> None:
    attribution = CorrRise.from_scores(lambda probes, _: torch.full((len(probes),), 0.7), 0.2, n_masks=20)
    assert not attribution.attribute(pair)[0].any()


def test_published_srise_is_the_default_and_the_masks_coverage(recognizer: Recognizer, pair: Images) -> None:
    """What the mean level takes away is the same map for every face, but for a factor."""
    published = SRise(recognizer, n_masks=40, level="none").attribute(pair)
    default = SRise(recognizer, n_masks=40).attribute(pair)
    masks = random_grids(40, 7, 0.5, (24, 20), seed=0)
    coverage = weighted_sum(torch.full((1, 40), 1 / 40, dtype=torch.float64), masks)[0] / 0.5
    for maps, expected in zip(published, default, strict=True):
        factor = (maps - expected).sum(dim=1) / coverage
        torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor))


def test_inputs_that_cannot_be_masked(recognizer: Recognizer, pair: Images) -> None:
    attribution = CorrRise(recognizer, n_masks=5)
    with pytest.raises(InputError, match="floating-point"):
        attribution.attribute((pair[0] > 0.5, pair[1] > 0.5))
    with pytest.raises(InputError, match="perturbations_per_eval"):
        attribution.attribute(pair, perturbations_per_eval=0)
    black_box = CorrRise.from_scores(lambda probes, references: torch.zeros(2), 0.2, n_masks=5)
    with pytest.raises(InputError, match="gave 2 scores for 1 pairs"):
        black_box.attribute((pair[0][:1], pair[1][:1]), perturbations_per_eval=1)
    with pytest.raises(InputError, match="what it is compared with"):
        black_box.attribute(pair[0])
    with pytest.raises(InputError, match="3 rows, or 1"):
        black_box.attribute(pair[0], additional_forward_args=pair[1][:2])
    with pytest.raises(InputError, match="no pair"):
        black_box.attribute(pair[0][:0], additional_forward_args=pair[1][:1])


METHODS_BY_CLASS = {method.cls: method for method in METHODS.values()}


@pytest.mark.parametrize("pairing", ["clean", "same", "all"])
def test_xface_as_released_equals_its_steps_one_by_one(
    recognizer: Recognizer, pair: tuple[Tensor, Tensor], pairing: Any
) -> None:
    """Boxes of (p+1)², none flush with the far edges; sums over all patches, not means over those that cover."""
    sizes, stride = (28, 56), 15  # of 24×20 pixels: sides of 6 and 12, a stride of 3
    probe, reference = pair[0][:1], pair[1][:1]
    found = XFace(recognizer, form="released", pairing=pairing, patch_sizes=sizes, stride=stride).attribute(
        (probe, reference)
    )
    clean = float((recognizer.embed(probe) * recognizer.embed(reference)).sum())
    embed, totals = recognizer.embed, np.zeros((2, 24, 20))
    for side in (6, 12):
        places = [(y, x) for y in range(0, 24 - side, 3) for x in range(0, 20 - side, 3)]
        boxes = [(slice(y, y + side + 1), slice(x, x + side + 1)) for y, x in places]
        for own, (face, partner) in enumerate(((probe, reference), (reference, probe))):
            hidden, others = ([_without(image, box) for box in boxes] for image in (face, partner))
            for number, box in enumerate(boxes):
                against = {"clean": [partner], "same": [others[number]], "all": others}[pairing]
                scores = [float((embed(hidden[number]) * embed(other)).sum()) for other in against]
                totals[own][box] += (clean - np.mean(scores)) / side**2 / len(boxes) / len(sizes)
    for side, values in zip(found, totals, strict=True):
        expected = gaussian_filter(values, 3, mode="mirror", radius=1)
        np.testing.assert_allclose(side[0].sum(0).numpy(), expected, rtol=1e-5, atol=1e-9)


def _without(image: Tensor, box: tuple[slice, slice]) -> Tensor:
    hidden = image.clone()
    hidden[(0, slice(None), *box)] = 0
    return hidden
