"""The recognizer and the decoder that ship with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xfr_plugin.errors import InputError
from xfr_plugin.faces.lfw import LfwPair, read_pairs, read_people
from xfr_plugin.recognition import Recognizer, list_recognizers, load_recognizer, zoo_card
from xfr_plugin.reconstruction import Decoder, find_decoder, list_decoders, load_decoder
from xfr_plugin.training.faces_data import read_faces
from xfr_plugin.training.publish import pair_cosines, present_pairs

NAME = "xfr_compact128"
MODELS = Path(__file__).parents[2] / "xfr_plugin" / "models"


@pytest.fixture(scope="module")
def embedded() -> Recognizer:
    return load_recognizer(NAME)


@pytest.fixture(scope="module")
def decoder(embedded: Recognizer) -> Decoder:
    return find_decoder(embedded)


@pytest.fixture(scope="module")
def pairs(faces_root: Path) -> list[LfwPair]:
    """Every fifth pair of DevTest, 100 genuine and 100 impostor, of people never trained on."""
    chosen = present_pairs(faces_root / "lfw112", read_pairs(faces_root / "pairsDevTest.txt")[::5])
    people = {file.split("/")[0] for pair in chosen for file in (pair.probe, pair.reference)}
    assert not people & set(read_people(faces_root / "peopleDevTrain.txt"))
    return chosen


def test_the_recognizer_is_in_the_zoo_with_its_calibration(embedded: Recognizer) -> None:
    assert NAME in list_recognizers()
    card = zoo_card(NAME)
    assert card.calibration == embedded.calibration
    assert embedded.calibration is not None
    assert embedded.calibration.eer.threshold < embedded.threshold_at(1e-2) < embedded.threshold_at(1e-3) < 1
    assert embedded.threshold == embedded.threshold_at(1e-3)
    assert embedded.provenance.sha256 is not None
    assert "peopleDevTrain" in embedded.provenance.training_data


def test_the_recognizer_is_small_and_made_for_hooks(embedded: Recognizer) -> None:
    assert (MODELS / f"{NAME}.safetensors").stat().st_size <= 5e6
    assert sum(p.numel() for p in embedded.network.parameters()) <= 2_000_000
    calls: dict[nn.Module, int] = {}
    handles = [
        module.register_forward_hook(lambda m, _i, _o: calls.update({m: calls.get(m, 0) + 1}))
        for module in embedded.network.modules()
    ]
    embedding = embedded.embed(torch.rand(2, 3, 112, 112))
    for handle in handles:
        handle.remove()
    assert embedding.shape == (2, 128)
    activations = [m for m in embedded.network.modules() if isinstance(m, nn.ReLU)]
    assert all(calls[m] == 1 and not m.inplace for m in activations)


def test_the_decoder_is_small_and_the_recognizers_own(embedded: Recognizer, decoder: Decoder) -> None:
    assert decoder.card.name == f"{NAME}_decoder"
    assert list_decoders()[decoder.card.name].stat().st_size <= 6e6
    decoder.check_recognizer(embedded)
    other = Recognizer(embedded.network, mean=0.4, std=0.5)
    with pytest.raises(InputError, match="not for this"):
        load_decoder(decoder.card.name, other)


def test_a_recognizer_without_decoder_is_told_how_to_get_one(recognizer: Recognizer) -> None:
    with pytest.raises(InputError, match="xfr train decoder --recognizer"):
        find_decoder(recognizer)


def test_the_atlas_has_one_map_a_channel_that_sums_to_one(decoder: Decoder) -> None:
    assert decoder.atlas.shape == (128, *decoder.card.output_size)
    torch.testing.assert_close(decoder.atlas.sum(dim=(1, 2)), torch.ones(128))
    assert float(decoder.atlas.min()) >= 0


@pytest.mark.real_data
@pytest.mark.parametrize("name", [NAME, "xfr_transformer"])
def test_accuracy_on_people_never_trained_on(name: str, pairs: list[LfwPair], faces_root: Path) -> None:
    recognizer = load_recognizer(name)
    scores = pair_cosines(recognizer, faces_root / "lfw112", pairs).numpy()
    same = np.array([pair.same for pair in pairs])
    assert recognizer.calibration is not None
    assert np.mean((scores >= recognizer.calibration.eer.threshold) == same) >= 0.93


@pytest.mark.real_data
def test_decoded_faces_keep_the_identity(
    embedded: Recognizer, decoder: Decoder, pairs: list[LfwPair], faces_root: Path
) -> None:
    files = sorted({pair.probe for pair in pairs})[:64]
    faces = read_faces(faces_root / "lfw112", {file: [file] for file in files})
    units = embedded.embed(faces.images.float() / 255)
    again = embedded.embed(decoder.faces(units))
    assert float((again * units).sum(dim=1).mean()) >= 0.5
