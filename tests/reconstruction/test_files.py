"""Decoders on disk: round trip, damage, and the wrong recognizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xfr_plugin.base.weights import read_metadata, write_weights
from xfr_plugin.errors import InputError, LayoutError, WeightsError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.reconstruction import Decoder, DecoderCard, load_decoder, save_decoder


def make_recognizer(seed: int = 0, **options: Any) -> Recognizer:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 16, 6))
    return Recognizer(network, input_size=(16, 16), **options)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(1)
    card = DecoderCard(
        name="small",
        recognizer="net",
        recognizer_sha256=fingerprint(make_recognizer()),
        embedding_dim=6,
        input_size=(16, 16),
        output_size=(8, 8),
        widths=(4, 4, 4),
        figures={"identity": 0.5},
    )
    atlas = torch.rand(6, 8, 8)
    atlas /= atlas.sum(dim=(1, 2), keepdim=True)
    return Decoder(card.build_network(), card, atlas, torch.rand(6), torch.rand(3, 8, 8))


@pytest.fixture
def file(decoder: Decoder, tmp_path: Path) -> Path:
    save_decoder(decoder, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def change(path: Path, state: dict[str, Tensor | None], **card: object) -> None:
    """Rewrite a decoder file with some tensors replaced (or, where None, left out) and card entries changed."""
    document = read_metadata(path)
    document["decoder"] |= card
    tensors = {**load_file(path), **state}
    write_weights(path, {name: value for name, value in tensors.items() if value is not None}, document)


def test_a_decoder_is_read_back(decoder: Decoder, file: Path) -> None:
    again = load_decoder(file, make_recognizer())
    embeddings = nn.functional.normalize(torch.randn(3, 6))
    assert again.card == decoder.card
    torch.testing.assert_close(again(embeddings), decoder(embeddings), atol=2e-3, rtol=0)
    torch.testing.assert_close(again.atlas, decoder.atlas, atol=1e-4, rtol=2e-3)
    torch.testing.assert_close(again.atlas.sum(dim=(1, 2)), torch.ones(6))
    assert again.faces(embeddings).shape == (3, 3, 16, 16)


def test_a_decoder_is_refused_for_another_recognizer(file: Path) -> None:
    with pytest.raises(InputError, match="trained for recognizer 'net', not for this"):
        load_decoder(file, make_recognizer(seed=5))


def test_a_fingerprint_depends_on_weights_and_preprocessing_only() -> None:
    own = fingerprint(make_recognizer())
    assert fingerprint(make_recognizer(name="other", threshold=0.1)) == own
    others = [make_recognizer(seed=2), make_recognizer(mean=0.4), make_recognizer(channel_order="BGR")]
    assert len({own, *map(fingerprint, others)}) == 4


def test_wrong_embeddings_are_refused(decoder: Decoder) -> None:
    with pytest.raises(InputError, match=r"takes embeddings of shape N×6, got \(2, 5\)"):
        decoder(torch.zeros(2, 5))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weight file"):
        load_decoder(tmp_path / "none.safetensors")


def test_a_truncated_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_decoder(file)


def test_other_weights_are_no_decoder(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(WeightsError, match="holds no decoder"):
        load_decoder(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("state", "card", "message"),
    [
        ({"network.paint.weight": torch.zeros(2, 2)}, {}, "1 keys of another shape"),
        ({"network.paint.weight": None}, {}, "1 keys missing"),
        ({"network.extra": torch.zeros(1)}, {}, "1 keys unknown"),
        ({"atlas": None}, {}, "lacks the decoder's atlas"),
        ({"atlas": torch.zeros(5, 8, 8)}, {}, r"atlas has shape \(5, 8, 8\)"),
        ({"mean_face": torch.zeros(3, 9, 8)}, {}, "mean_face has shape"),
        ({}, {"embedding_dim": 7}, "of another shape"),
    ],
)
def test_tampered_tensors_are_refused(
    file: Path, state: dict[str, Tensor | None], card: dict[str, object], message: str
) -> None:
    change(file, state, **card)
    with pytest.raises(LayoutError, match=message):
        load_decoder(file)


@pytest.mark.parametrize("card", [{"embedding_dim": -1}, {"surprise": 1}, {"output_size": "large"}])
def test_a_damaged_card_is_refused(file: Path, card: dict[str, object]) -> None:
    change(file, {}, **card)
    with pytest.raises(WeightsError, match="damaged card: "):
        load_decoder(file)
