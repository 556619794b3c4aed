"""The map of an embedding channel by decoding: against a slow loop, and under Captum's contract."""

from __future__ import annotations

import copy
import pickle
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Attribution, NoiseTunnel
from helpers.tiny_decoder import make_decoder
from torch import Tensor, nn

from xfr_plugin.attr import ReconstructionExplainer
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.reconstruction import Decoder, save_decoder

Images = tuple[Tensor, Tensor]


@pytest.fixture
def decoder(recognizer: Recognizer) -> Decoder:
    return make_decoder(recognizer)


@pytest.fixture
def explainer(recognizer: Recognizer, decoder: Decoder) -> ReconstructionExplainer:
    return ReconstructionExplainer(recognizer, decoder)


def looped_map(
    decoder: Decoder, unit: Tensor, channel: int, value: float, *, signed: bool, norm: str
) -> Tensor:
    """One channel's map 24×20, in the plainest words."""
    ablated = unit.clone()
    ablated[channel] = value
    whole, without = decoder(unit[None])[0], decoder(ablated[None])[0]
    total = torch.zeros(12, 10, dtype=torch.float64)
    for colour in range(3):
        change = whole[colour] - without[colour]
        total += (change if signed else change.abs()) / 3
    large = nn.functional.interpolate(total[None, None], (24, 20), mode="bilinear")[0, 0]
    if norm == "none":
        return large
    return large / (large.abs().sum() if norm == "l1" else large.square().sum().sqrt())


@pytest.mark.parametrize(
    ("ablation", "signed", "norm"),
    list(product(("zero", "mean", "partner"), (False, True), ("l1", "l2", "none"))),
)
def test_maps_are_those_of_a_loop(
    recognizer: Recognizer, decoder: Decoder, pair: Images, ablation: Any, signed: bool, norm: Any
) -> None:
    explainer = ReconstructionExplainer(
        recognizer, decoder, ablation=ablation, signed=signed, norm=norm, batch_size=2
    )
    units, partners = recognizer.embed(pair[0]), recognizer.embed(pair[1])
    extra = 2 * partners if ablation == "partner" else None  # the partner need not be normalised
    maps = explainer.attribute(pair[0], target=[4, 0, 2], additional_forward_args=extra)
    every = explainer.all_channels(pair[0], additional_forward_args=extra)
    values = {"zero": torch.zeros(3, 6), "mean": decoder.mean_embedding.expand(3, -1), "partner": partners}
    for face, target in enumerate((4, 0, 2)):
        for channel in range(6):
            value = float(values[ablation][face, channel])
            expected = looped_map(decoder, units[face], channel, value, signed=signed, norm=norm)
            torch.testing.assert_close(every[face, channel], expected, rtol=1e-8, atol=1e-14)
            if channel == target:
                torch.testing.assert_close(maps[face].sum(dim=0), expected, rtol=1e-8, atol=1e-14)
                torch.testing.assert_close(maps[face, 0], maps[face, 2], rtol=0, atol=0)


def test_gradient_is_the_limit_of_small_replacements(
    recognizer: Recognizer, decoder: Decoder, pair: Images
) -> None:
    explainer = ReconstructionExplainer(
        recognizer, decoder, response="gradient", norm="none", signed=True, batch_size=4
    )
    units = recognizer.embed(pair[0])
    every = explainer.all_channels(pair[0])
    for face, channel in product(range(3), range(6)):
        step = torch.zeros_like(units[face])
        step[channel] = 1e-6
        difference = (decoder((units[face] + step)[None]) - decoder((units[face] - step)[None])) / 2e-6
        small = difference.mean(dim=1, keepdim=True)
        expected = nn.functional.interpolate(small, (24, 20), mode="bilinear")[0, 0]
        torch.testing.assert_close(every[face, channel], expected, rtol=1e-4, atol=1e-9)


def test_norm_holds_at_the_inputs_size(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    l1 = ReconstructionExplainer(recognizer, decoder).attribute(pair[0], target=3)
    torch.testing.assert_close(l1.sum(dim=(1, 2, 3)), torch.ones(3, dtype=torch.float64))
    assert (l1 >= 0).all()
    l2 = ReconstructionExplainer(recognizer, decoder, norm="l2").attribute(pair[0], target=3)
    torch.testing.assert_close(l2.sum(dim=1).flatten(1).norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_targets_select_channels_as_captum_does(explainer: ReconstructionExplainer, pair: Images) -> None:
    every = explainer.all_channels(pair[0])
    one = every[:, 2]
    for target in (2, (2,), torch.tensor(2), torch.tensor([2]), [2, 2, 2], torch.tensor([2, 2, 2]), -4):
        maps = explainer.attribute(pair[0], target=target)
        torch.testing.assert_close(maps.sum(dim=1), one)
    for target in ([5, 0, 1], torch.tensor([5, 0, 1]), [(5,), (0,), (1,)]):
        maps = explainer.attribute(pair[0], target=target)
        torch.testing.assert_close(maps.sum(dim=1), torch.stack((every[0, 5], every[1, 0], every[2, 1])))


@pytest.mark.parametrize("target", [None, "2", 1.5, (1, 2), [1, 2], torch.tensor([1, 2]), (slice(0, 2),)])
def test_targets_that_captum_refuses(explainer: ReconstructionExplainer, pair: Images, target: Any) -> None:
    with pytest.raises(AssertionError):
        explainer.attribute(pair[0], target=target)


@pytest.mark.parametrize("target", [6, -7, [0, 1, 6], torch.tensor([0, 1, 6])])
def test_channels_that_do_not_exist(explainer: ReconstructionExplainer, pair: Images, target: Any) -> None:
    with pytest.raises(InputError, match="0 to 5"):
        explainer.attribute(pair[0], target=target)


def test_faces_and_batches_do_not_mix(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    whole = ReconstructionExplainer(recognizer, decoder).all_channels(pair[0])
    for batch_size in (1, 4, 100):
        explainer = ReconstructionExplainer(recognizer, decoder, batch_size=batch_size)
        torch.testing.assert_close(explainer.all_channels(pair[0]), whole)
        torch.testing.assert_close(explainer.all_channels(pair[0][1:2])[0], whole[1])


def test_an_embedding_alone_gives_the_faces_maps(
    explainer: ReconstructionExplainer, recognizer: Recognizer, pair: Images
) -> None:
    embeddings = recognizer.embed(pair[0])
    every = explainer.all_channels(pair[0])
    torch.testing.assert_close(explainer.explain_embedding(embeddings), every)
    torch.testing.assert_close(explainer.explain_embedding(7 * embeddings[1]), every[1])
    by_partner = ReconstructionExplainer(recognizer, explainer.decoder, ablation="partner")
    partner = recognizer.embed(pair[1])
    torch.testing.assert_close(
        by_partner.explain_embedding(embeddings, partner),
        by_partner.all_channels(pair[0], additional_forward_args=partner),
    )


def test_one_partner_serves_a_whole_batch(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    explainer = ReconstructionExplainer(recognizer, decoder, ablation="partner")
    partner = recognizer.embed(pair[1][:1])
    expected = explainer.attribute(pair[0], 2, partner.expand(3, -1))
    torch.testing.assert_close(explainer.attribute(pair[0], 2, partner), expected)
    torch.testing.assert_close(explainer.attribute(pair[0], 2, partner[0]), expected)
    for wrong in (None, 3, partner[:, :2], partner.repeat(2, 1)):
        with pytest.raises(InputError):
            explainer.attribute(pair[0], 2, wrong)


def test_atlas_is_the_same_for_every_face(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    explainer = ReconstructionExplainer(recognizer, decoder, source="atlas")
    every = explainer.all_channels(pair[0])
    assert every.shape == (3, 6, 24, 20)
    torch.testing.assert_close(every[0], every[2])
    torch.testing.assert_close(every[0].sum(dim=(1, 2)), torch.ones(6, dtype=torch.float64))
    large = nn.functional.interpolate(decoder.atlas[:, None], (24, 20), mode="bilinear")[:, 0]
    torch.testing.assert_close(every[0], large / large.sum(dim=(1, 2), keepdim=True))
    maps = explainer.attribute(pair[0], target=[1, 2, 3])
    torch.testing.assert_close(maps.sum(dim=1), every[0, 1:4])
    torch.testing.assert_close(explainer.explain_embedding(torch.rand(6)), every[0])
    raw = ReconstructionExplainer(recognizer, decoder, source="atlas", norm="none").all_channels(pair[0])
    torch.testing.assert_close(raw[0], large)


def test_reconstruction_is_the_decoders(
    explainer: ReconstructionExplainer, recognizer: Recognizer, pair: Images
) -> None:
    units = recognizer.embed(pair[0])
    expected = explainer.decoder.faces(units)
    torch.testing.assert_close(explainer.reconstruct(pair[0]), expected)
    torch.testing.assert_close(explainer.reconstruct(3 * units[0]), expected[:1])
    assert explainer.reconstruct(pair[0]).shape == (3, 3, 24, 20)


@torch.no_grad()
def test_strongest_channels_change_the_decoded_face_most(
    explainer: ReconstructionExplainer, recognizer: Recognizer, pair: Images
) -> None:
    units = recognizer.embed(pair[0])
    found = explainer.strongest_channels(pair[0], n=4)
    signed = ReconstructionExplainer(recognizer, explainer.decoder, signed=True).strongest_channels(
        units, n=4
    )
    torch.testing.assert_close(found.changes, signed.changes)
    for face in range(3):
        changes = []
        for channel in range(6):
            ablated = units[face].clone()
            ablated[channel] = 0
            difference = explainer.decoder(units[face : face + 1]) - explainer.decoder(ablated[None])
            changes.append(float(difference.abs().mean()))
        order = sorted(range(6), key=lambda k: -changes[k])[:4]
        assert found.channels[face].tolist() == order
        np.testing.assert_allclose(found.changes[face], [changes[k] for k in order])
        torch.testing.assert_close(found.values[face], units[face, order])


def test_noise_tunnel_carries_the_partner_along(
    recognizer: Recognizer, decoder: Decoder, pair: Images
) -> None:
    explainer = ReconstructionExplainer(recognizer, decoder, ablation="partner")
    partner = recognizer.embed(pair[1])
    smooth = NoiseTunnel(explainer).attribute(
        pair[0], nt_samples=2, stdevs=1e-9, target=[0, 1, 2], additional_forward_args=partner
    )
    torch.testing.assert_close(smooth, explainer.attribute(pair[0], [0, 1, 2], partner), atol=1e-5, rtol=1e-3)


def test_captum_sees_an_attribution_without_delta(explainer: ReconstructionExplainer) -> None:
    assert isinstance(explainer, Attribution)
    assert not explainer.multiplies_by_inputs
    assert not explainer.has_convergence_delta()
    assert explainer.get_name() == "Reconstruction Explainer"


def test_decoders_are_found_or_named(recognizer: Recognizer, decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no decoder ships"):
        ReconstructionExplainer(recognizer)
    with pytest.raises(InputError, match="pass decoder"):
        ReconstructionExplainer(lambda images: recognizer(images))
    path = tmp_path / "tiny.safetensors"
    save_decoder(decoder, path)
    from_file = ReconstructionExplainer(recognizer, path)
    assert from_file.decoder.card == decoder.card
    with torch.no_grad():
        recognizer.network.fc.bias += 1
    with pytest.raises(InputError, match="was trained for"):
        ReconstructionExplainer(recognizer, str(path))


@pytest.mark.parametrize(
    "options",
    [
        {"ablation": "noise"},
        {"response": "slope"},
        {"norm": "max"},
        {"source": "map"},
        {"batch_size": 0},
        {"response": "gradient", "ablation": "mean"},
        {"source": "atlas", "signed": True},
        {"source": "atlas", "ablation": "mean"},
        {"source": "atlas", "response": "gradient"},
    ],
)
def test_options_that_make_no_sense(
    recognizer: Recognizer, decoder: Decoder, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        ReconstructionExplainer(recognizer, decoder, **options)


def test_inputs_that_make_no_sense(
    explainer: ReconstructionExplainer, recognizer: Recognizer, pair: Images
) -> None:
    for inputs in (pair, pair[0][:0], pair[0][0]):
        with pytest.raises(InputError, match="N×C×H×W"):
            explainer.attribute(inputs, target=0)
    with pytest.raises(InputError, match="N×6"):
        explainer.explain_embedding(torch.rand(2, 5))
    for n in (0, 7):
        with pytest.raises(InputError, match="between 1 and 6"):
            explainer.strongest_channels(pair[0], n)
    atlas = ReconstructionExplainer(recognizer, explainer.decoder, source="atlas")
    with pytest.raises(InputError, match="atlas"):
        atlas.strongest_channels(pair[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_maps_are_the_same_on_a_gpu(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    expected = ReconstructionExplainer(recognizer, decoder).attribute(pair[0], target=[0, 1, 2])
    explainer = ReconstructionExplainer(recognizer.cuda(), decoder.cuda())
    maps = explainer.attribute(pair[0].cuda(), target=[0, 1, 2])
    assert maps.is_cuda
    torch.testing.assert_close(maps.cpu(), expected)


def test_the_shipped_recognizer_finds_its_decoder() -> None:
    explainer = ReconstructionExplainer(load_recognizer("xfr_compact128"))
    face = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    maps = explainer.attribute(face, target=97)
    assert maps.shape == face.shape
    torch.testing.assert_close(maps.sum(), torch.tensor(1.0))
    assert explainer.reconstruct(face).shape == face.shape


def test_what_is_no_face_is_refused(
    recognizer: Recognizer, decoder: Decoder, explainer: ReconstructionExplainer, pair: Images
) -> None:
    """Not mapped: maps of whole numbers would be rounded to nothing, and those of no embedding are none."""
    for dtype in (torch.uint8, torch.int64, torch.bool):
        for ask in (explainer.all_channels, lambda images: explainer.attribute(images, target=1)):
            with pytest.raises(InputError, match="must be of floats"):
                ask(pair[0].mul(255).to(dtype))
    unit = recognizer.embed(pair[0])
    for bad in (torch.zeros(6), unit * torch.nan, torch.cat((unit, unit[:1] * torch.inf))):
        for ask in (explainer.explain_embedding, explainer.reconstruct, explainer.dwelling):
            with pytest.raises(InputError, match="zero, not a number or infinite"):
                ask(bad)
    partners = ReconstructionExplainer(recognizer, decoder, ablation="partner")
    with pytest.raises(InputError, match="zero, not a number"):
        partners.attribute(pair[0], target=1, additional_forward_args=torch.zeros(6))
    with pytest.raises(InputError, match="must be a tensor"):
        explainer.reconstruct(unit.numpy())  # type: ignore[arg-type]  # as above


MODES = {
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [{}, {"response": "gradient"}, {"source": "atlas"}, {"ablation": "partner"}]
)
def test_no_mode_of_the_caller_changes_a_map(
    recognizer: Recognizer, decoder: Decoder, pair: Images, mode: str, options: dict[str, Any]
) -> None:
    explainer = ReconstructionExplainer(recognizer, decoder, **options)
    arguments = {"target": [0, 3, 5], "additional_forward_args": recognizer.embed(pair[1])}
    if "ablation" not in options:
        del arguments["additional_forward_args"]
    expected = explainer.attribute(pair[0], **arguments)
    with MODES[mode]():
        found = explainer.attribute(pair[0].clone(), **arguments)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_a_copy_answers_as_the_original(explainer: ReconstructionExplainer, pair: Images) -> None:
    expected = explainer.attribute(pair[0], target=2)
    for twin in (copy.deepcopy(explainer), pickle.loads(pickle.dumps(explainer))):
        assert torch.equal(twin.attribute(pair[0], target=2), expected)
    assert torch.equal(explainer.attribute(pair[0], target=2), expected)
