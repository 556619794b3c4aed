"""Reconstruction saliency: its identities, its options against slow references, and the shipped decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_decoder import make_decoder
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr import ReconstructionSaliency
from xfr_plugin.errors import InputError
from xfr_plugin.faces.photo import load_photo
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.reconstruction import Decoder

Images = tuple[Tensor, Tensor]

FORMS: list[dict[str, Any]] = [
    {},
    {"distance": 0.0},
    {"distance": 1.0, "standardised": True},
    {"source": "face", "spread": "typical"},
    {"variant": "paper"},
    {"variant": "paper", "distance": 1.0},
    {"variant": "paper", "source": "face"},
    {"variant": "paper", "source": "face", "ablation": "mean", "centred": True},
    {"variant": "paper", "source": "face", "ablation": "partner", "distance": 0.5},
    {"variant": "paper", "centred": True},
]


@pytest.fixture
def decoder(recognizer: Recognizer) -> Decoder:
    return make_decoder(recognizer)


@pytest.mark.parametrize("level", ["threshold", "score"])
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_each_face_sums_to_the_margin(
    recognizer: Recognizer, decoder: Decoder, pair: Images, options: dict[str, Any], level: Any
) -> None:
    saliency = ReconstructionSaliency(recognizer, decoder=decoder, level=level, **options)
    assert saliency.has_convergence_delta()
    maps, delta = saliency.attribute(pair, return_convergence_delta=True)
    scores = (recognizer.embed(pair[0]) * recognizer.embed(pair[1])).sum(dim=1)
    margin = scores - 0.2 if level == "threshold" else torch.zeros_like(scores)
    for side in maps:
        torch.testing.assert_close(side.sum(dim=(1, 2, 3)), margin, atol=1e-6, rtol=0)
    assert delta.shape == (3,)
    assert delta.abs().max() < 1e-6


def test_maps_of_other_norms_have_no_delta(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    saliency = ReconstructionSaliency(recognizer, decoder=decoder, variant="paper", norm="l2")
    assert not saliency.has_convergence_delta()
    with pytest.raises(InputError, match="no convergence delta"):
        saliency.attribute(pair, return_convergence_delta=True)


@pytest.mark.parametrize("ablation", ["zero", "mean", "partner"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_paper_form_is_the_obvious_loop(
    recognizer: Recognizer, decoder: Decoder, pair: Images, ablation: Any, norm: Any
) -> None:
    maps, _ = ReconstructionSaliency(
        recognizer,
        decoder=decoder,
        variant="paper",
        source="face",
        ablation=ablation,
        norm=norm,
        batch_size=2,
    ).attribute(pair)
    a, b = recognizer.embed(pair[0]), recognizer.embed(pair[1])
    for n in range(3):
        expected = torch.zeros(24, 20, dtype=torch.float64)
        for k in range(6):
            value = {"zero": torch.zeros(6), "mean": decoder.mean_embedding, "partner": b[n]}[ablation][k]
            without = a[n].clone()
            without[k] = value
            change = (decoder(a[n : n + 1]) - decoder(without[None])).abs().mean(dim=1, keepdim=True)
            change = functional.interpolate(change, (24, 20), mode="bilinear")[0, 0]
            size = change.sum() if norm == "l1" else change.square().sum().sqrt()
            expected += (a[n, k] * b[n, k] - 0.2 / 6) * change / size
        torch.testing.assert_close(maps[n].sum(dim=0), expected.detach())


def test_distance_evidence_of_channels_is_as_written(
    recognizer: Recognizer, decoder: Decoder, pair: Images
) -> None:
    a, b = recognizer.embed(pair[0]), recognizer.embed(pair[1])
    saliency = ReconstructionSaliency(recognizer, decoder=decoder, variant="paper", distance=1.0)
    torch.testing.assert_close(saliency.evidence(a, b), (1 - 0.2) / 6 - (a - b).square() / 2)


def test_centring_takes_off_the_mean_map(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    plain, centred = (
        ReconstructionSaliency(recognizer, decoder=decoder, variant="paper", centred=flag).attribute(pair)[0]
        for flag in (False, True)
    )
    atlas = functional.interpolate(decoder.atlas[:, None], (24, 20), mode="bilinear")
    atlas = atlas / atlas.sum(dim=(2, 3), keepdim=True)
    margin = plain.sum(dim=(1, 2, 3))[:, None, None]
    expected = plain.sum(dim=1) - margin * atlas.mean(dim=0) + margin / 480
    torch.testing.assert_close(centred.sum(dim=1), expected)


def test_stored_embeddings_are_enough(recognizer: Recognizer, decoder: Decoder, pair: Images) -> None:
    saliency = ReconstructionSaliency(recognizer, decoder=decoder)
    probe, reference = saliency.attribute(pair)
    torch.testing.assert_close(probe, reference)  # regional evidence belongs to the pair
    alone = saliency.attribute(pair[0], additional_forward_args=recognizer.embed(pair[1]))
    torch.testing.assert_close(alone, probe)


def test_no_gradient_is_asked_for(decoder: Decoder, recognizer: Recognizer, pair: Images) -> None:
    def black_box(images: Tensor) -> Tensor:
        return torch.from_numpy(recognizer(images).detach().numpy())

    for options in FORMS:
        with torch.no_grad():
            maps = ReconstructionSaliency(black_box, 0.2, decoder=decoder, **options).attribute(pair)
        expected = ReconstructionSaliency(recognizer, decoder=decoder, **options).attribute(pair)
        torch.testing.assert_close(maps, expected)


def test_a_wrong_option_or_decoder_is_refused(recognizer: Recognizer, decoder: Decoder) -> None:
    for options, message in (
        ({"variant": "other"}, "variant"),
        ({"source": "image"}, "source"),
        ({"level": "mean"}, "level"),
        ({"spread": "wide"}, "spread"),
        ({"ablation": "one"}, "ablation"),
        ({"norm": "l3"}, "norm"),
        ({"distance": 2.0}, "distance"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(InputError, match=message):
            ReconstructionSaliency(recognizer, decoder=decoder, **options)
    with pytest.raises(InputError, match="no decoder ships"):
        ReconstructionSaliency(recognizer)
    decoder.regional = None
    with pytest.raises(InputError, match="xfr train regions"):
        ReconstructionSaliency(recognizer, decoder=decoder)
    ReconstructionSaliency(recognizer, decoder=decoder, variant="paper")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_gpu_computes_the_same(
    recognizer: Recognizer, decoder: Decoder, pair: Images, options: dict[str, Any]
) -> None:
    expected = ReconstructionSaliency(recognizer, decoder=decoder, **options).attribute(pair)
    on_gpu = ReconstructionSaliency(recognizer.cuda(), decoder=decoder.cuda(), **options)
    found = on_gpu.attribute((pair[0].cuda(), pair[1].cuda()))
    torch.testing.assert_close(tuple(side.cpu() for side in found), expected)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["xfr_compact128", "mobilefacenet_ms1m"])
def test_the_shipped_decoders_explain_real_pairs(faces_root: Path, name: str) -> None:
    recognizer = load_recognizer(name)
    files = ["George_W_Bush/George_W_Bush_0001.jpg", "George_W_Bush/George_W_Bush_0002.jpg"]
    photos = [torch.tensor(load_photo(faces_root / "lfw112" / file)).permute(2, 0, 1) for file in files]
    images = torch.stack(photos).float() / 255
    for options in FORMS:
        saliency = ReconstructionSaliency(recognizer, **options)
        maps, delta = saliency.attribute((images[:1], images[1:]), return_convergence_delta=True)
        assert delta.abs().max() < 1e-4
        assert maps[0].shape == (1, 3, 112, 112)
        assert torch.isfinite(maps[0]).all()
