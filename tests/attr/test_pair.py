"""Every pair attribution on a recognizer; what Captum asks of a class is in test_captum_conformance.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from helpers.captum_checks import subjects
from helpers.tiny_decoder import toy_decoder
from helpers.tiny_evidence import toy_evidence
from torch import nn

from xfr_plugin.attr import (
    METHODS,
    Amortised,
    CorrRise,
    Fggb,
    PairAttribution,
    PairIntegratedGradients,
    ReconstructionSaliency,
    Xssab,
)
from xfr_plugin.channels.evidence import channel_evidence, channel_similarity
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.recognition import Recognizer

Images = tuple[torch.Tensor, torch.Tensor]
CLASSES = [method.cls for method in METHODS.values()]
QUICK = {subject.cls: subject.options for subject in subjects().values()}
"""Small option values by class."""


@pytest.fixture(params=CLASSES, ids=[cls.__name__ for cls in CLASSES])
def attribution(request: pytest.FixtureRequest, recognizer: Recognizer) -> PairAttribution:
    return build(request.param, recognizer)


def build(
    cls: type[PairAttribution],
    function: Callable[..., torch.Tensor],
    threshold: float | None = None,
    options: Mapping[str, object] | None = None,
) -> PairAttribution:
    """Build a class, with `QUICK` options unless given; what needs a trained network gets a small one for ours."""
    options = dict(QUICK[cls] if options is None else options)
    if cls is ReconstructionSaliency:
        options |= {"decoder": toy_decoder(6, (24, 20))}
    if cls is Amortised and isinstance(function, Recognizer):
        options |= {"network": toy_evidence(function, torch.rand(1, 3, 24, 20, dtype=torch.float64))}
    return cls(function, threshold, **options)


def test_evidence_sums_to_the_margin(recognizer: Recognizer, pair: Images) -> None:
    probe, reference = recognizer.embed(pair[0]), recognizer.embed(pair[1])
    score = (probe * reference).sum(1)
    torch.testing.assert_close(channel_similarity(probe, reference).sum(1), score)
    torch.testing.assert_close(channel_evidence(probe, reference, 0.2).sum(1), score - 0.2)
    relative = channel_evidence(probe, reference, 0.2, "score")
    torch.testing.assert_close(relative.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    with pytest.raises(InputError, match="level"):
        channel_evidence(probe, reference, 0.2, "mean")


@pytest.mark.parametrize("cls", CLASSES, ids=[cls.__name__ for cls in CLASSES])
def test_maps_have_the_form_of_the_inputs(
    cls: type[PairAttribution], recognizer: Recognizer, pair: Images
) -> None:
    """With the options that are the defaults; the tests below take quicker ones."""
    alone = (pair[0][:1], pair[1][:1])
    maps = build(cls, recognizer, options={}).attribute(alone)
    assert isinstance(maps, tuple)
    for side, images in zip(maps, alone, strict=True):
        assert side.shape == images.shape
        assert side.dtype == images.dtype
        assert side.is_contiguous()
        assert not side.requires_grad
        assert side.abs().sum() > 0


def test_swapping_the_pair_swaps_the_maps(attribution: PairAttribution, pair: Images) -> None:
    first, second = attribution.attribute(pair)
    swapped = attribution.attribute((pair[1], pair[0]))
    torch.testing.assert_close(swapped[0], second)
    torch.testing.assert_close(swapped[1], first)


def test_inputs_that_are_no_pair(attribution: PairAttribution, recognizer: Recognizer, pair: Images) -> None:
    probe, reference = pair
    embedding = recognizer.embed(reference)
    with pytest.raises(InputError, match="reference embedding"):
        attribution.attribute(probe)
    with pytest.raises(InputError, match="must be 3×D"):
        attribution.attribute(probe, additional_forward_args=embedding[:2])
    with pytest.raises(InputError, match=r"has 5 channels|must be \d+×6, got \(\d+, 5\)"):
        attribution.attribute(probe, additional_forward_args=embedding[:, :5])
    for wrong in (0, torch.nan):
        with pytest.raises(InputError, match="like no face"):
            attribution.attribute(probe, additional_forward_args=wrong * embedding)
    with pytest.raises(InputError, match="equal shapes"):
        attribution.attribute((probe, reference[:2]))
    with pytest.raises(InputError, match="tuple of probe and reference"):
        attribution.attribute((probe, reference, probe))
    with pytest.raises(InputError, match="no pair"):
        attribution.attribute((probe[:0], reference[:0]))
    with pytest.raises(InputError, match="24×20"):
        attribution.attribute((probe[..., :10], reference[..., :10]))


def test_networks_that_return_more_than_the_embedding_are_explained(
    recognizer: Recognizer, pair: Images
) -> None:
    def both(images: torch.Tensor) -> dict[str, torch.Tensor]:
        embeddings = recognizer.features(images)
        return {"embedding": embeddings, "norm": embeddings.norm(dim=1)}

    for cls in (Fggb, Xssab, CorrRise, PairIntegratedGradients):
        options = {"n_masks": 5, "patch_size": 30} if cls is CorrRise else {}
        found = cls(both, 0.2, **options).attribute(pair)
        torch.testing.assert_close(found, cls(recognizer.features, 0.2, **options).attribute(pair))


def test_names_are_not_explained() -> None:
    with pytest.raises(InputError, match=r"not 'xfr_compact128': see xfr_plugin\.load_recognizer"):
        Xssab("xfr_compact128")  # type: ignore[arg-type]  # what people try


def test_threshold_is_the_recognizers_own_unless_given(recognizer: Recognizer) -> None:
    for cls in CLASSES:
        assert build(cls, recognizer).threshold == 0.2
        assert build(cls, recognizer, 0.7).threshold == 0.7
        with pytest.raises(InputError, match="threshold"):
            build(cls, nn.Flatten())


def test_registry_builds_methods_with_their_options(recognizer: Recognizer) -> None:
    built = METHODS["fggb"].build(recognizer, 0.3, chunk_size=2, embedding="normalized")
    assert isinstance(built, Fggb)
    assert (built.threshold, built.chunk_size, built.embedding) == (0.3, 2, "normalized")
    assert METHODS["xssab"].options() == {"arguments": "combined", "blur": None}
    with pytest.raises(UnknownNameError, match="option of xssab"):
        METHODS["xssab"].build(recognizer, 0.3, chunk=2)
    with pytest.raises(InputError):
        METHODS["fggb"].build(recognizer, 0.3, chunk_size="many")
