"""Saliency by relevance: sums, signs, the recognizer's preprocessing, and agreement with Zennit's pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zennit.image
from torch import Tensor, nn
from torch.nn import functional
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat
from zennit.image import imgify, palette

from xfr_plugin.attr import METHODS, ChannelRelevanceSaliency, LrpSaliency
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.explanation.figures.canvas import hatched
from xfr_plugin.explanation.figures.explanation import overlay
from xfr_plugin.lrp.choice import composite_for
from xfr_plugin.lrp.composites import EpsilonGammaBoxFace, EpsilonPlusFlatFace
from xfr_plugin.recognition import Recognizer

Images = tuple[Tensor, Tensor]


def margins(recognizer: Recognizer, pair: Images, level: str = "threshold") -> Tensor:
    score = (recognizer.embed(pair[0]) * recognizer.embed(pair[1])).sum(1)
    return score - 0.2 if level == "threshold" else torch.zeros_like(score)


def test_lrp_is_zennits_gradient_of_the_similarity(recognizer: Recognizer, pair: Images) -> None:
    maps = LrpSaliency(recognizer).attribute(pair)
    units = [recognizer.embed(side) for side in pair]
    for side, images in zip(maps, pair, strict=True):
        composite = EpsilonPlusFlatFace()
        _, expected = Gradient(recognizer.network, composite, units[0] * units[1])(
            recognizer.preprocess(images)
        )
        torch.testing.assert_close(side, expected)


class More(nn.Module):
    """A network that returns more than its embedding."""

    def __init__(self, network: nn.Module, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.network, self.form = network, form

    def forward(self, images: Tensor) -> object:
        return self.form(self.network(images))


@pytest.mark.parametrize(
    "form",
    [
        lambda found: {"quality": found[:, :1], "embedding": found},
        lambda found: (found, found[:, :1]),
        lambda found: found.half().double(),
    ],
)
def test_networks_that_return_more_have_the_relevance_of_their_embedding(
    form: Callable[[Tensor], object], recognizer: Recognizer, pair: Images
) -> None:
    contract = recognizer.contract.model_dump()
    made = Recognizer(More(recognizer.network, form), **contract, threshold=0.2)
    made.tested = True
    expected = LrpSaliency(recognizer).attribute(pair)
    for side, plain in zip(LrpSaliency(made).attribute(pair), expected, strict=True):
        torch.testing.assert_close(side, plain, rtol=1e-2, atol=1e-3 * float(plain.abs().max()))


def test_channel_maps_are_weighed_by_evidence(recognizer: Recognizer, pair: Images) -> None:
    """A loop over pairs, channels and Zennit's own backward pass."""
    for options in ({}, {"part": "positive"}, {"part": "signed", "normalization": "l2"}, {"level": "score"}):
        found, _ = ChannelRelevanceSaliency(recognizer, **options).attribute(pair)
        expected = torch.zeros_like(found)
        for i in range(3):
            probe, reference = (
                recognizer.embed(pair[0][i : i + 1])[0],
                recognizer.embed(pair[1][i : i + 1])[0],
            )
            v = probe * reference
            base = v.mean() if options.get("level") == "score" else 0.2 / 6
            for k in range(6):
                start = (torch.arange(6) == k) * probe[None]
                network_input = recognizer.preprocess(pair[0][i : i + 1])
                _, relevance = Gradient(recognizer.network, EpsilonPlusFlatFace(), start)(network_input)
                m = relevance[0].sum(0) * probe[k].sign()
                part = options.get("part", "absolute")
                m = m.abs() if part == "absolute" else m.clamp_min(0) if part == "positive" else m
                m = m / (m.norm() if options.get("normalization") == "l2" else m.abs().sum())
                expected[i] += (v[k] - base) * m / 3
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("level", ["threshold", "score"])
def test_maps_sum_to_the_evidence(recognizer: Recognizer, pair: Images, level: str) -> None:
    attribution = ChannelRelevanceSaliency(recognizer, level=level)
    assert attribution.has_convergence_delta()
    maps, delta = attribution.attribute(pair, return_convergence_delta=True)
    assert delta.shape == (3,)
    assert delta.abs().max() < 1e-12
    for side in maps:
        torch.testing.assert_close(side.sum((1, 2, 3)), margins(recognizer, pair, level), atol=1e-12, rtol=0)
    reference = recognizer.embed(pair[1])
    alone, delta = attribution.attribute(
        pair[0], additional_forward_args=reference, return_convergence_delta=True
    )
    torch.testing.assert_close(alone, maps[0])
    assert delta.shape == (3,)


def test_a_delta_is_refused_where_there_is_none(recognizer: Recognizer, pair: Images) -> None:
    for options in ({"part": "signed"}, {"normalization": "l2"}):
        attribution = ChannelRelevanceSaliency(recognizer, **options)
        assert not attribution.has_convergence_delta()
        with pytest.raises(InputError, match="convergence delta"):
            attribution.attribute(pair, return_convergence_delta=True)


def test_chunks_change_nothing(recognizer: Recognizer, pair: Images) -> None:
    expected = ChannelRelevanceSaliency(recognizer).attribute(pair)
    for chunk_size in (1, 7, 1000):
        found = ChannelRelevanceSaliency(recognizer, chunk_size=chunk_size).attribute(pair)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cls", [LrpSaliency, ChannelRelevanceSaliency])
def test_colours_of_a_bgr_network_come_back_as_rgb(
    cls: type[LrpSaliency], recognizer: Recognizer, pair: Images
) -> None:
    network = copy.deepcopy(recognizer.network)
    with torch.no_grad():
        network.conv1.weight.copy_(recognizer.network.conv1.weight.flip(1))
    bgr = Recognizer(network, input_size=(24, 20), threshold=0.2, channel_order="BGR").double()
    torch.testing.assert_close(cls(bgr).attribute(pair), cls(recognizer).attribute(pair))


@pytest.mark.parametrize("cls", [LrpSaliency, ChannelRelevanceSaliency])
def test_a_network_in_training_mode_is_explained_as_in_evaluation(
    cls: type[LrpSaliency], recognizer: Recognizer, pair: Images
) -> None:
    expected = cls(recognizer).attribute(pair)
    before = {name: value.clone() for name, value in recognizer.state_dict().items()}
    recognizer.train()
    torch.testing.assert_close(cls(recognizer).attribute(pair), expected, rtol=0, atol=0)
    assert all(module.training for module in recognizer.modules())
    assert all(torch.equal(recognizer.state_dict()[name], value) for name, value in before.items())


def test_composites_by_name(recognizer: Recognizer, pair: Images) -> None:
    assert isinstance(composite_for(recognizer), EpsilonPlusFlatFace)
    box = composite_for(recognizer, "epsilon_gamma_box_face")
    assert isinstance(box, EpsilonGammaBoxFace)
    zennits = composite_for(recognizer, "epsilon_plus_flat")
    assert type(zennits) is EpsilonPlusFlat
    assert zennits.canonizers
    for name in ("epsilon_gamma_box_face", "epsilon_gamma_box", "excitation_backprop_face", "epsilon_plus"):
        maps = LrpSaliency(recognizer, composite=name).attribute(pair)
        assert all(bool(side.isfinite().all()) and side.abs().sum() > 0 for side in maps)
    with pytest.raises(InputError, match="range of pixels"):
        composite_for(recognizer.network, "epsilon_gamma_box_face")
    with pytest.raises(UnknownNameError, match="did you mean 'epsilon_plus"):
        LrpSaliency(recognizer, composite="epsilon_plus_fla")


def test_functions_are_refused_with_what_to_do() -> None:
    for cls in (LrpSaliency, ChannelRelevanceSaliency):
        with pytest.raises(InputError, match=r"pass a Recognizer or an nn\.Module"):
            cls(lambda images: images.flatten(1), 0.2)


def test_registered_as_needing_a_composite() -> None:
    assert METHODS["lrp"].needs == METHODS["channel_relevance"].needs == "composite"


def test_zennits_pictures_and_ours_agree(
    recognizer: Recognizer, pair: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same sign, and the same order of strength, of the colours of every pixel."""
    # Pillow 13 takes no arrays as palettes, which is what Zennit 0.5.1 and 1.0 hand it
    monkeypatch.setattr(zennit.image, "palette", lambda *given: palette(*given).ravel().tolist())
    maps = ChannelRelevanceSaliency(recognizer, level="score").attribute(pair)
    values = maps[0][0].sum(0).numpy()
    assert values.min() < 0 < values.max()
    image = np.full((*values.shape, 3), 128, dtype=np.uint8)
    ours = overlay(image, values, float(np.abs(values).max()))
    # bwr: white at zero, red for positive and blue for negative values; ours: blue for, orange against
    theirs = np.asarray(imgify(values, symmetric=True, cmap="bwr").convert("RGB")).astype(float) / 255
    their_sign = theirs[..., 0] - theirs[..., 2]
    our_sign = ours[..., 2] - ours[..., 0]
    visible = np.abs(values) > np.abs(values).max() / 50  # imgify has 256 levels
    assert (np.sign(their_sign[visible]) == np.sign(values[visible])).all()
    grey = overlay(image, np.zeros_like(values), 1.0)
    against = visible & (values < 0) & ~hatched((values.shape[0], values.shape[1]))
    for sign, part in ((1, visible & (values > 0)), (-1, against)):
        order = np.argsort(np.abs(values[part]))
        their_strength = np.abs(their_sign[part])[order]
        our_strength = np.abs(ours - grey).sum(-1)[part][order]
        assert (np.diff(their_strength) >= -1 / 128).all()
        assert (np.diff(our_strength) >= -1e-12).all()
        assert ((our_sign[part] * sign) > 0)[order][-5:].all()


class Branches(nn.Module):
    """A network whose two halves see the upper and the lower half of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, (12, 20), stride=(12, 20), bias=False)
        self.act = nn.ReLU()
        self.fc = nn.Linear(12, 12, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.fc(self.act(self.conv(images)).flatten(1))
        return embedding


def test_a_channel_of_one_half_is_found_in_that_half(pair: Images) -> None:
    """Channels that read the upper half agree, those of the lower half disagree: so do the maps."""
    torch.manual_seed(0)
    network = Branches().double().eval()
    with torch.no_grad():
        network.conv.weight.abs_()
        network.fc.weight.copy_(torch.eye(12))
        network.fc.weight[1::2] *= torch.randn(6, 1)  # odd rows: lower half
    units = functional.normalize(network(pair[0]).detach())
    partner = units.clone()
    partner[:, 1::2] *= -1
    for cls in (LrpSaliency, ChannelRelevanceSaliency):
        found = cls(network, 0.0).attribute(pair[0], additional_forward_args=partner).sum(1)
        assert (found[:, :12].sum((1, 2)) > 0).all()
        assert (found[:, 12:].sum((1, 2)) < 0).all()
        assert found[:, :12].min() > -1e-9
        assert found[:, 12:].max() < 1e-9


@pytest.mark.real_data
def test_maps_of_a_real_pair_sum_to_its_margin(xfr_data: Path) -> None:
    from xfr_plugin import explain

    folder = xfr_data / "faces" / "lfw112" / "Abel_Pacheco"
    explanation = explain(
        folder / "Abel_Pacheco_0001.jpg", folder / "Abel_Pacheco_0004.jpg", method="channel_relevance"
    )
    margin = explanation.verification.margin
    for face in (explanation.probe, explanation.reference):
        assert float(face.saliency.sum()) == pytest.approx(margin, abs=1e-4)


@pytest.mark.parametrize("name", ["lrp", "ebp", "channel_relevance"])
def test_a_network_is_read_once_and_again_when_it_has_changed(
    name: str, recognizer: Recognizer, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of a network serves later calls and later attributions, and never gives maps of other weights."""
    from xfr_plugin.attr import get_method
    from xfr_plugin.lrp.canonizers import FaceCanonizer

    applied: list[int] = []
    original = FaceCanonizer.register
    monkeypatch.setattr(
        FaceCanonizer, "register", lambda self, root: (applied.append(1), original(self, root))[1]
    )

    def maps() -> Tensor:
        return torch.cat(get_method(name).build(recognizer, 0.2).attribute(pair))

    first, count = maps(), len(applied)
    torch.testing.assert_close(maps(), first, rtol=0, atol=0)
    assert len(applied) == count
    with torch.no_grad():
        recognizer.network.conv1.weight.data.mul_(torch.linspace(0.5, 1.5, 8).view(-1, 1, 1, 1))
    second = maps()
    assert len(applied) > count
    fresh = Recognizer(copy.deepcopy(recognizer.network), input_size=(24, 20), threshold=0.2)
    expected = torch.cat(get_method(name).build(fresh, 0.2).attribute(pair))
    torch.testing.assert_close(second, expected)
    assert not torch.allclose(second, first)
