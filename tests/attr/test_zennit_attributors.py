"""The Zennit-style attributor gives the explainer's maps, under Zennit's contract."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_decoder import make_decoder
from torch import Tensor
from zennit.attribution import Attributor
from zennit.composites import EpsilonPlus

from xfr_plugin.attr import ReconstructionExplainer, ReconstructionSaliency
from xfr_plugin.attr.reconstruction import ReconstructionAttributor, SaliencyAttributor
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import Decoder

Images = tuple[Tensor, Tensor]


@pytest.fixture
def decoder(recognizer: Recognizer) -> Decoder:
    return make_decoder(recognizer)


def test_one_hot_output_picks_the_explainers_map(
    recognizer: Recognizer, decoder: Decoder, pair: Images
) -> None:
    expected = ReconstructionExplainer(recognizer, decoder).attribute(pair[0], target=[5, 0, 2])
    picked = torch.eye(6, dtype=torch.float64)[[5, 0, 2]]
    with ReconstructionAttributor(recognizer, decoder=decoder) as attributor:
        assert isinstance(attributor, Attributor)
        output, maps = attributor(pair[0], picked)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(output, recognizer.embed(pair[0]))
    assert not maps.requires_grad
    default = ReconstructionAttributor(recognizer, None, lambda output: picked, decoder=decoder)
    torch.testing.assert_close(default(pair[0])[1], expected)


def test_output_weighs_the_maps(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    every = ReconstructionExplainer(recognizer, decoder, norm="l2").all_channels(pair[0])
    attributor = ReconstructionAttributor(recognizer, decoder=decoder, norm="l2")
    output, maps = attributor(pair[0])
    expected = torch.zeros(3, 24, 20, dtype=torch.float64)
    for face in range(3):
        for channel in range(6):
            expected[face] += output[face, channel] * every[face, channel]
    torch.testing.assert_close(maps.sum(dim=1), expected)
    shared = torch.tensor([0.0, 1, 0, -2, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(attributor(pair[0], shared)[1].sum(dim=1), every[:, 1] - 2 * every[:, 3])
    assert not attributor(pair[0], torch.zeros(6))[1].any()


def test_atlas_serves_too(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    atlas = ReconstructionExplainer(recognizer, decoder, source="atlas")
    attributor = ReconstructionAttributor(recognizer, decoder=decoder, source="atlas")
    picked = torch.eye(6, dtype=torch.float64)[[5, 0, 2]]
    torch.testing.assert_close(attributor(pair[0], picked)[1], atlas.attribute(pair[0], [5, 0, 2]))


def test_a_composite_is_registered_with_a_replica_only(
    recognizer: Recognizer, decoder: Decoder, pair: Images
) -> None:
    composite = EpsilonPlus()
    attributor = ReconstructionAttributor(recognizer, composite, decoder=decoder)
    plain = ReconstructionAttributor(recognizer, decoder=decoder)(pair[0])
    result = attributor(pair[0])
    torch.testing.assert_close(result, plain)
    with attributor as own:
        assert own.composite.handles
        assert own.model is not recognizer
        torch.testing.assert_close(own(pair[0]), plain)
        torch.testing.assert_close(attributor(pair[0]), plain)
        assert not composite.handles
    assert not own.composite.handles
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in recognizer.modules())


def test_wrong_weights_and_options(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    attributor = ReconstructionAttributor(recognizer, decoder=decoder)
    with pytest.raises(InputError, match="3×6"):
        attributor(pair[0], torch.ones(5))
    with pytest.raises(InputError, match="partner"):
        ReconstructionAttributor(recognizer, decoder=decoder, ablation="partner")
    with pytest.raises(InputError, match="norm"):
        ReconstructionAttributor(recognizer, decoder=decoder, norm="max")


@pytest.mark.parametrize(
    "options", [{}, {"variant": "paper", "source": "face", "ablation": "partner"}], ids=str
)
def test_saliency_against_partners(
    recognizer: Recognizer, decoder: Decoder, pair: Images, options: dict[str, str]
) -> None:
    expected = ReconstructionSaliency(recognizer, decoder=decoder, **options).attribute(pair)[0]
    partners = recognizer.embed(pair[1])
    composite = EpsilonPlus()
    with SaliencyAttributor(recognizer, composite, decoder=decoder, **options) as attributor:
        output, maps = attributor(pair[0], partners)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(output, recognizer.embed(pair[0]))
    assert not composite.handles
    given = SaliencyAttributor(recognizer, None, partners, decoder=decoder, threshold=0.2, **options)
    torch.testing.assert_close(given(pair[0])[1], expected)
    with pytest.raises(InputError, match="reference embedding"):
        attributor(pair[0], partners[:2])


def test_left_alone_a_face_is_its_own_partner(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    maps = SaliencyAttributor(recognizer, decoder=decoder)(pair[0])[1]
    torch.testing.assert_close(maps.sum(dim=(1, 2, 3)), torch.full((3,), 0.8, dtype=torch.float64))
